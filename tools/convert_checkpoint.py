"""Convert a checkpoint of the original PANet, PA-EDSR or RNAN, or of either framework, into one that both load."""

import argparse
from pathlib import Path

from panet_plugin.frameworks.launch import report_errors
from panet_plugin.weights import load_official, write_checkpoint


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint to read")
    parser.add_argument("target", type=Path, help=".pth or .safetensors to write")
    parser.add_argument(
        "--rgb-range",
        type=float,
        help="largest colour value that the original was trained with, if neither mean shifts nor its size tell it",
    )
    args = parser.parse_args()
    if args.target.suffix not in (".pth", ".safetensors"):
        parser.error(f"{args.target}: the target must end in .pth or .safetensors")
    if args.rgb_range is not None and not args.rgb_range > 0:
        parser.error(f"--rgb-range must be positive, got {args.rgb_range:g}")
    with report_errors():
        network = load_official(args.source, args.rgb_range)
        write_checkpoint(network, args.target)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{args.target}: {type(network).__name__}, {parameters / 1e6:.3f} M parameters")


if __name__ == "__main__":
    main()
