"""Options that command-line tools have in common."""

from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, Namespace
from dataclasses import fields

from panet_plugin.tasks import TASKS, Task, make_task


def add_task_options(parser: ArgumentParser) -> None:
    """Add ``--task`` and an option for every parameter of any task."""
    group = parser.add_argument_group("task", "what to restore from what; the other options are its parameters")
    group.add_argument("--task", choices=TASKS, required=True)
    for name, task in TASKS.items():
        for field in fields(task):
            option = f"--{field.name.replace('_', '-')}"
            text = f"of {name}; default: {field.default}"
            if isinstance(field.default, bool):
                group.add_argument(option, action=BooleanOptionalAction, default=SUPPRESS, help=text)
            else:
                kind = float if field.name == "sigma" else type(field.default)
                group.add_argument(option, type=kind, default=SUPPRESS, help=text)


def parse_task(parser: ArgumentParser, args: Namespace) -> Task:
    """Return the task that the options describe; end the program with a message if there is no such task."""
    names = {field.name for task in TASKS.values() for field in fields(task)}
    try:
        return make_task(args.task, **{name: value for name, value in vars(args).items() if name in names})
    except ValueError as error:
        parser.error(str(error))
