"""Command lines of the scripts in tools/ and data_prep/, without running them: for the manual and for its tests."""

import runpy
import sys
from argparse import ArgumentParser
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]


def scripts() -> list[str]:
    """Return all scripts that users run, as ``tools/train.py``."""
    paths = [path for name in ("tools", "data_prep") for path in sorted((ROOT / name).glob("*.*"))]
    return [path.relative_to(ROOT).as_posix() for path in paths if path.suffix in (".py", ".sh")]


def parser_of(script: str) -> ArgumentParser:
    """Return the parser that a Python script makes, by running it up to where it parses its command line.

    Args:
        script: Path from the top of the project.

    Raises:
        RuntimeError: If the script parses none.
    """
    with mock.patch.object(ArgumentParser, "parse_known_args", _stop), mock.patch.object(sys, "argv", [script]):
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except _Parsing as found:
            return found.parser
    raise RuntimeError(f"{script} ended without parsing a command line")


class _Parsing(BaseException):
    """Not an Exception, which a script might catch."""

    def __init__(self, parser: ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def _stop(parser: ArgumentParser, *args: object, **options: object) -> None:
    raise _Parsing(parser)
