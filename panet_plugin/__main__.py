"""The command ``panet``, also ``python -m panet_plugin``, with all tools as subcommands."""

import importlib
import sys

#: Commands, by their module in :mod:`panet_plugin.commands`, and their purposes.
COMMANDS = {
    "restore": ("restore", "restore images with any checkpoint or a bundled model"),
    "train": ("train", "train from a config of MMEngine or BasicSR"),
    "test": ("test", "score a checkpoint on a config's test data"),
    "compare": ("compare", "score methods on benchmark sets by the published protocol of a task"),
    "convert": ("convert_checkpoint", "convert a checkpoint to a file that both frameworks load"),
    "export": ("export", "export a network to ONNX, torch.export, TorchScript or safetensors"),
    "show-attention": ("show_attention", "draw the attention of selected pixels"),
    "ablate": ("ablate", "train and score the settings of a study under equal conditions"),
    "check-gpu": ("check_gpu", "check results, time and memory of the attention on a GPU"),
    "paper-check": ("paper_check", "reproduce the published figures that need no trained network"),
}


def main() -> None:
    """Run the command named first on the command line."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: panet COMMAND [-h] ...\n\ncommands:")
        for command, (_, purpose) in COMMANDS.items():
            print(f"  {command:16}{purpose}")
        return
    if name not in COMMANDS:
        sys.exit(f"panet: error: unknown command {name!r}; expected one of {', '.join(COMMANDS)}")
    sys.argv = [f"panet {name}", *sys.argv[2:]]
    importlib.import_module(f"panet_plugin.commands.{COMMANDS[name][0]}").main()


if __name__ == "__main__":
    main()
