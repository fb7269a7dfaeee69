"""Check prepared sets: whether every image below ROOT is there and still what it was when it was made."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from panet_plugin.data.command import run_command
from panet_plugin.data.verify import verify_root


def main() -> None:
    """Verify all sets of a folder; exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of a prepared set, such as data/DIV2K")
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads (default: one per core)")
    arguments = parser.parse_args()
    if problems := verify_root(arguments.root, arguments.workers):
        sys.exit("\n".join([*problems, "What is not right: remove it, and repeat the command that prepared the set."]))


if __name__ == "__main__":
    run_command("verify", main)
