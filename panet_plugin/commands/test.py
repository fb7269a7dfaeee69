"""Score a checkpoint on a config's test data, with the framework that the config belongs to."""

import argparse
from pathlib import Path

from panet_plugin.command_line import add_window_option
from panet_plugin.frameworks.launch import LAUNCHERS, Overrides, framework_of, report_errors


def main() -> None:
    """Parse the command line and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help=".py of MMEngine or .yml of BasicSR")
    parser.add_argument("checkpoint", type=Path, help="of this project or either framework, .pth or .safetensors")
    parser.add_argument("--work-dir", type=Path, help="where logs go")
    parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="what started the processes")
    add_window_option(parser, "")
    parser.add_argument("--cfg-options", nargs="+", action=Overrides, metavar="KEY=VALUE", help="overrides")
    args = parser.parse_args()
    with report_errors():
        framework_of(args.config).test(
            args.config,
            args.checkpoint,
            work_dir=args.work_dir,
            launcher=args.launcher,
            options=args.cfg_options,
            window=args.window,
        )
