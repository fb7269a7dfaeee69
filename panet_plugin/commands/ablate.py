"""Train and score the settings of a study with equal budgets and seeds; run it again to continue."""

import argparse
from pathlib import Path

from panet_plugin.command_line import add_device_option, report_errors


def main() -> None:
    """Parse the command line, train, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=Path, help="study to run, such as configs/ablation/attention.py")
    parser.add_argument(
        "--data", nargs="+", type=Path, required=True, metavar="DIR", help="clean images, in DIR or DIR/HR"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="runs, and ablation.md, .csv, .json and .png; default: work_dirs/ablation/NAME. The cost of a step is "
        "measured once: delete DIR/costs.json to measure it again",
    )
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="default: those of the study")
    parser.add_argument("--jobs", type=int, default=1, help="concurrent runs; default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="threads per run; default: %(default)s")
    add_device_option(parser)
    args = parser.parse_args()
    with report_errors():
        from panet_plugin.ablation import Ablation, run  # It needs MMEngine.

        ablation = Ablation.fromfile(args.settings, args.seeds)
        out = args.out or Path("work_dirs/ablation", ablation.name)
        print(run(ablation, args.data, out, jobs=args.jobs, threads=args.threads, device=args.device))
        print(f"results are in {out}")
