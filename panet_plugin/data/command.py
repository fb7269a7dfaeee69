"""What the scripts of data_prep/ share: logging and error messages."""

from __future__ import annotations

import argparse
import errno
import logging
import sys
from collections.abc import Callable

from panet_plugin.data.shards import Shard


def shard(text: str) -> Shard:
    """Read ``I/N`` on a command line."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_command(name: str, work: Callable[[], None]) -> None:
    """Run a script; on errors, exit with a message instead of a traceback.

    Args:
        name: Name of the script, for messages.
        work: The script's main function.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        work()
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "\nThe disk is full. Free some space; the same command then continues from here." if full else ""
        sys.exit(f"{name}: {error}{hint}")
