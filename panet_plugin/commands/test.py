"""Score a checkpoint on a config's test data, with the framework of the config."""

import argparse
from pathlib import Path

from panet_plugin.command_line import add_training_options, add_window_option, report_errors
from panet_plugin.frameworks.bridges import framework_of


def main() -> None:
    """Parse the command line and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_training_options(parser)
    parser.add_argument(
        "checkpoint", type=Path, help="checkpoint of this project or either framework, .pth or .safetensors"
    )
    add_window_option(parser, "")
    args = parser.parse_args()
    with report_errors():
        framework_of(args.config, args.framework).test(
            args.config,
            args.checkpoint,
            work_dir=args.work_dir,
            launcher=args.launcher,
            options=args.cfg_options,
            window=args.window,
        )
