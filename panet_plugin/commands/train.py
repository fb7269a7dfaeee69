"""Train from a config with its framework: MMEngine's Runner with MMagic, or BasicSR's trainer."""

import argparse

from panet_plugin.command_line import add_training_options, report_errors
from panet_plugin.frameworks.bridges import framework_of


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_training_options(parser)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the work dir")
    args = parser.parse_args()
    with report_errors():
        framework_of(args.config, args.framework).train(
            args.config,
            work_dir=args.work_dir,
            resume=args.resume,
            launcher=args.launcher,
            options=args.cfg_options,
        )
