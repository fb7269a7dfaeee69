"""Shared options of the command-line tools."""

import re
import sys
from argparse import (
    SUPPRESS,
    Action,
    ArgumentError,
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
    Namespace,
)
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import torch

from panet_plugin.errors import PanetError
from panet_plugin.frameworks.bridges import BRIDGES, SUFFIXES
from panet_plugin.ranks import Rank, RankError
from panet_plugin.tasks import TASKS, Task, make_task

#: Tasks by short name.
SHORT_NAMES = {task.short: name for name, task in TASKS.items() if task.short}


def add_task_options(parser: ArgumentParser, required: bool = True) -> None:
    """Add ``--task`` and an option for every parameter of any task.

    Args:
        parser: The parser.
        required: Whether ``--task`` is required.
    """
    group = parser.add_argument_group("task", "the restoration task; the other options are its parameters")
    group.add_argument(
        "--task",
        type=lambda text: SHORT_NAMES.get(text, text),
        choices=TASKS,
        required=required,
        help=", ".join(f"{short}: {name}" for short, name in SHORT_NAMES.items()),
    )
    of_tasks: dict[str, list[tuple[str, Field]]] = {}
    for name, task in TASKS.items():
        for field in fields(task):
            of_tasks.setdefault(field.name, []).append((name, field))
    for parameter, users in of_tasks.items():
        option = f"--{parameter.replace('_', '-')}"
        text = "; ".join(f"of {name}, default: {field.default}" for name, field in users)
        default = users[0][1].default
        if isinstance(default, bool):
            group.add_argument(option, action=BooleanOptionalAction, default=SUPPRESS, help=text)
        else:
            kind = users[0][1].metadata.get("option", type(default))
            group.add_argument(option, type=kind, default=SUPPRESS, help=text)


def add_window_option(parser: ArgumentParser | Any, otherwise: str) -> None:
    """Add ``--window N|none``; its value is a number of pixels, None, or ``"trained"`` by default.

    Args:
        parser: A parser or argument group.
        otherwise: Text appended to the help: exceptions from the default.
    """
    parser.add_argument(
        "--window",
        type=_window,
        default="trained",
        metavar="N|none",
        help="match within a square of N pixels, or in the whole image; default: the size of the training patches if "
        f"the checkpoint records it{otherwise}",
    )


def add_device_option(parser: ArgumentParser | Any) -> None:
    """Add ``--device`` to a parser or argument group."""
    parser.add_argument(
        "--device",
        type=device,
        default="auto",
        help="where networks run: cpu, cuda, mps, or auto, the fastest available; default: %(default)s",
    )


def add_training_options(parser: ArgumentParser) -> None:
    """Add ``config`` and the shared options of training and testing."""
    parser.add_argument("config", type=_config, help=f"training config: {', '.join(SUFFIXES)}")
    parser.add_argument(
        "--framework", choices=BRIDGES, help="framework that runs it; default: detected from the config"
    )
    parser.add_argument("--work-dir", type=Path, help="folder for logs and checkpoints")
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none", help="how processes are started"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=Overrides, metavar="KEY=VALUE", help="override keys of the config"
    )


def _config(text: str) -> Path:
    """Return the path of a config; former paths, outside the folders of families, work for one more release."""
    path = Path(text)
    if not path.exists() and len(moved := list(path.parent.glob(f"*/{path.name}"))) == 1:
        print(f"warning: {path} has moved to {moved[0]}", file=sys.stderr)
        return moved[0]
    return path


class Overrides(Action):
    """Parses ``KEY=VALUE ...`` as MMEngine does; anything else is an error of the command line."""

    def __call__(self, parser: ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        """Parse the words and store them by key."""
        from mmengine.config import DictAction

        read = DictAction(self.option_strings, self.dest)
        for word in values:
            key, equals, _ = word.partition("=")
            if not equals or not all(key.split(".")):
                raise ArgumentError(self, f"expected KEY=VALUE, got {word!r}")
            try:
                read(parser, namespace, [word], option)
            except (AssertionError, RecursionError) as error:
                raise ArgumentError(self, f"unbalanced brackets, or too many, in {word!r}") from error


def _window(text: str) -> int | str | None:
    # argparse also parses defaults that are strings.
    return text if text == "trained" else None if text == "none" else positive(text)


def positive(text: str) -> int:
    """Parse a positive integer, as the type of an option.

    Raises:
        ArgumentTypeError: If it is not one.
    """
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def device(text: str) -> str:
    """Parse a PyTorch device, as the type of an option.

    ``"auto"`` is the first available of CUDA, MPS and CPU; ``"cuda"`` is each process's own GPU.

    Raises:
        ArgumentTypeError: If the device is not available.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        text = Rank.of().device(text)
    except RankError as error:
        raise ArgumentTypeError(str(error)) from error
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentTypeError(f"{text}: no such device here ({str(error).splitlines()[0]})") from error
    return text


def task_parameters(args: Namespace) -> dict[str, Any]:
    """Return the task parameters given as options."""
    names = {field.name for task in TASKS.values() for field in fields(task)}
    return {name: value for name, value in vars(args).items() if name in names}


def parse_task(parser: ArgumentParser, args: Namespace) -> Task | None:
    """Return the task described by the options, None without ``--task``; exit with an error if it is invalid."""
    parameters = task_parameters(args)
    if args.task is None:
        if parameters:
            parser.error(f"{', '.join(sorted(parameters))}: parameters require their task in --task")
        return None
    return parse_required_task(parser, args)


def parse_required_task(parser: ArgumentParser, args: Namespace) -> Task:
    """Return the task described by the options, if ``--task`` is required; exit with an error if it is invalid."""
    try:
        return make_task(args.task, **task_parameters(args))
    except ValueError as error:
        parser.error(str(error))


@contextmanager
def report_errors() -> Iterator[None]:
    """Exit with a message instead of a traceback on errors that a user can fix."""
    try:
        yield
    except (PanetError, OSError, ImportError) as error:
        # The message of an error in a data-loading process includes its traceback.
        found = re.match(r"Caught (\w+) in DataLoader worker process.*\n(?:\S*\.)?\1: (.*)", str(error), re.DOTALL)
        sys.exit(f"error: {found[2].strip() if found else error}")
