"""Verify prepared sets: check that every image below ROOT exists and is unchanged."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from panet_plugin.data.command import run_command
from panet_plugin.data.verify import verify_root


def main() -> None:
    """Verify all sets in a folder; exit with 1 if there are problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of a prepared set, such as data/DIV2K")
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads; default: one per core")
    arguments = parser.parse_args()
    if problems := verify_root(arguments.root, arguments.workers):
        sys.exit("\n".join([*problems, "Remove these files, and repeat the command that prepared the set."]))


if __name__ == "__main__":
    run_command("verify", main)
