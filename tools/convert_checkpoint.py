"""Convert a checkpoint of the original PANet or PA-EDSR, or of either framework, into one that both frameworks load."""

import argparse
from pathlib import Path

from panet_plugin.frameworks.launch import report_errors
from panet_plugin.weights import load_official, write_checkpoint


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="checkpoint to read")
    parser.add_argument("target", type=Path, help=".pth or .safetensors to write")
    args = parser.parse_args()
    with report_errors():
        network = load_official(args.source)
        write_checkpoint(network, args.target)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    print(f"{args.target}: {type(network).__name__}, {parameters / 1e6:.3f} M parameters")


if __name__ == "__main__":
    main()
