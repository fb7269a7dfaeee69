"""Reproduce the published figures that need no trained network; fail if one differs."""

import argparse
import itertools
import sys
from pathlib import Path

from panet_plugin.command_line import report_errors
from panet_plugin.evaluation.paper_check import bm3d_check, paper_checks, report_checks
from panet_plugin.files import write_bytes
from panet_plugin.former_options import add_renamed_option


def main() -> None:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path("data/benchmarks"), help="benchmark sets; default: %(default)s"
    )
    parser.add_argument("--bm3d", action="store_true", help="also CBM3D on CBSD68 (slow; needs the package bm3d)")
    parser.add_argument("--workers", type=int, help="processes for CBM3D; default: one per CPU")
    parser.add_argument(
        "--cache", type=Path, default=Path("work_dirs/paper_check"), help="CBM3D's scores; default: %(default)s"
    )
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    add_renamed_option(parser, "--root", "--data")
    args = parser.parse_args()
    checks = []
    with report_errors():
        slow = bm3d_check(args.data, args.cache, args.workers, progress=True) if args.bm3d else ()
        for check in itertools.chain(paper_checks(args.data), slow):
            checks.append(check)
            verdict = "ok     " if check.passed else "DIFFERS"
            print(f"{verdict} {check.what}: {check.measured}, published {check.published}", flush=True)
        if args.out:
            write_bytes(args.out, report_checks(checks).encode())
    failed = [check.what for check in checks if not check.passed]
    print(f"{len(checks) - len(failed)} of {len(checks)} figures agree")
    sys.exit(bool(failed))
