"""Write a network as ONNX (.onnx), torch.export (.pt2), TorchScript (.pt) or safetensors, and check what it does."""

import argparse
from pathlib import Path

from panet_plugin.archs import PyramidAttention, attention_window
from panet_plugin.checkpoints import load_any
from panet_plugin.command_line import add_window_option, report_errors
from panet_plugin.export import FORMATS, LEAST_OPSET, export_network


def main() -> None:
    """Parse the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="of either framework, of this project or of the original")
    parser.add_argument("target", type=Path, help=f"file to write: {', '.join(FORMATS)}")
    parser.add_argument(
        "--config",
        type=Path,
        help="for a checkpoint that does not say of which network it is: the .py or .yml it was trained with",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators; default: PyTorch's choice")
    add_window_option(parser, "; .safetensors keeps that side instead, for whoever loads it")
    args = parser.parse_args()
    if args.target.suffix not in FORMATS:
        parser.error(f"{args.target}: the target must end in one of {', '.join(FORMATS)}")
    if args.opset is not None and args.target.suffix != ".onnx":
        parser.error("--opset is for .onnx")
    if args.opset is not None and args.opset < LEAST_OPSET:
        parser.error(f"--opset must be at least {LEAST_OPSET}: PyTorch's exporter has no earlier")
    if args.target.suffix == ".safetensors" and args.window != "trained":
        parser.error("--window is for programs, which .safetensors has not")
    with report_errors():
        network = load_any(args.checkpoint, args.config)
        # Where weights are loaded, the window is chosen then.
        patch = None if args.target.suffix == ".safetensors" else getattr(network, "trained_patch", None)
        with attention_window(network, args.window, patch):
            differences = export_network(network, args.target, args.opset)
            windows = {block.window for block in network.modules() if isinstance(block, PyramidAttention)} - {None}
    parameters = sum(parameter.numel() for parameter in network.parameters())
    words = [f"{type(network).__name__}, {parameters / 1e6:.3f} M parameters"]
    print(f"{args.target}: " + ", ".join([*words, *(f"attention in a window of {window}" for window in windows)]))
    for shape, difference in differences:
        print(f"  {'x'.join(map(str, shape))}: within {difference:.1e} of the network")
