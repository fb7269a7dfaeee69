"""Train from a config: MMEngine's Runner takes the ``.py`` ones, BasicSR's trainer the ``.yml`` ones."""

import argparse
from pathlib import Path

from panet_plugin.frameworks.launch import LAUNCHERS, Overrides, framework_of, report_errors


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help=".py of MMEngine or .yml of BasicSR")
    parser.add_argument("--work-dir", type=Path, help="where logs and checkpoints go")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the work dir")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="what started the processes")
    parser.add_argument("--cfg-options", nargs="+", action=Overrides, metavar="KEY=VALUE", help="overrides")
    args = parser.parse_args()
    with report_errors():
        framework_of(args.config).train(
            args.config,
            work_dir=args.work_dir,
            resume=args.resume,
            launcher=args.launcher,
            options=args.cfg_options,
        )
