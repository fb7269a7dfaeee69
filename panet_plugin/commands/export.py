"""Export a network as ONNX (.onnx), torch.export (.pt2), TorchScript (.pt) or safetensors, and check the result."""

import argparse
from pathlib import Path

from panet_plugin.archs import PyramidAttention, attention_window
from panet_plugin.checkpoints import load_any
from panet_plugin.command_line import add_window_option, report_errors
from panet_plugin.export import FORMATS, LEAST_OPSET, export_network
from panet_plugin.former_options import parse_required


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="CHECKPOINT",
        help="checkpoint of either framework, this project or the original; required",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"file to write: {', '.join(FORMATS)}; required")
    parser.add_argument(
        "--config",
        type=Path,
        help="training config (.py or .yml) of a checkpoint that does not identify its network",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators; default: PyTorch's choice")
    add_window_option(parser, "; .safetensors stores the patch size instead")
    args = parse_required(parser, "--weights", "--out")
    if args.out.suffix not in FORMATS:
        parser.error(f"{args.out}: expected a name that ends in one of {', '.join(FORMATS)}")
    if args.opset is not None and args.out.suffix != ".onnx":
        parser.error("--opset applies only to .onnx")
    if args.opset is not None and args.opset < LEAST_OPSET:
        parser.error(f"--opset must be at least {LEAST_OPSET}, the earliest version that PyTorch exports")
    if args.out.suffix == ".safetensors" and args.window != "trained":
        parser.error("--window applies only to programs, which .safetensors does not contain")
    with report_errors():
        network = load_any(args.weights, args.config)
        # Where weights are loaded, the window is chosen then.
        patch = None if args.out.suffix == ".safetensors" else getattr(network, "trained_patch", None)
        with attention_window(network, args.window, patch):
            differences = export_network(network, args.out, args.opset)
            windows = {block.window for block in network.modules() if isinstance(block, PyramidAttention)} - {None}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    words = [f"{type(network).__name__}, {parameters / 1e6:.3f} M parameters"]
    print(f"{args.out}: " + ", ".join([*words, *(f"attention in a window of {window}" for window in windows)]))
    for shape, difference in differences:
        print(f"  {'x'.join(map(str, shape))}: within {difference:.1e} of the network")
