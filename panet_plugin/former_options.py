"""Former command lines that work for one more release, with a warning."""

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import Any


def add_renamed_option(parser: ArgumentParser, old: str, new: str) -> None:
    """Accept the former name of an option."""
    action = parser._option_string_actions[new]

    class Renamed(type(action)):  # type: ignore[misc]
        def __call__(self, parser: ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
            print(f"warning: {old} is now {new}", file=sys.stderr)
            super().__call__(parser, namespace, values, option)

    kind = action.type or str
    parser.add_argument(
        old, action=Renamed, dest=action.dest, nargs=action.nargs, type=kind, default=SUPPRESS, help=SUPPRESS
    )


def parse_required(parser: ArgumentParser, *required: str) -> Namespace:
    """Parse a command line with required options, whose values were positional arguments in this order before."""
    parser.add_argument("former", nargs="*", default=[], help=SUPPRESS)
    args = parser.parse_args()
    given, extra = args.former[: len(required)], args.former[len(required) :]
    if extra:
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    for option, text in zip(required, given, strict=False):
        print(f"warning: {text}: expected {option} {text}", file=sys.stderr)
        parser.parse_args([option, text], args)
    missing = [option for option in required if getattr(args, parser._option_string_actions[option].dest) is None]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return args
