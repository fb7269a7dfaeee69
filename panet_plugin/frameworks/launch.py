"""What the command-line tools share: which framework runs a config, overrides, errors without a traceback."""

import argparse
import importlib
import multiprocessing
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.config import DictAction

from panet_plugin.errors import PanetError
from panet_plugin.frameworks.compat import enable_basicsr

__all__ = ["LAUNCHERS", "Overrides", "framework_of", "report_errors"]

#: What may have started the processes of distributed training.
LAUNCHERS = ("none", "pytorch", "slurm")

# Where data-loading workers are spawned and not forked, they import the main script's imports and then unpickle one
# of BasicSR's datasets: the repairs must come first. Our own datasets for MMagic bring them along.
if multiprocessing.parent_process() is not None and any(word.endswith((".yml", ".yaml")) for word in sys.argv):
    enable_basicsr()


class Overrides(DictAction):
    """MMEngine's action of argparse for ``KEY=VALUE ...``, which ends the program with a message for anything else."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        """Read the words and keep them by key."""
        for word in values:
            key, equals, _ = word.partition("=")
            if not equals or not all(key.split(".")):
                raise argparse.ArgumentError(self, f"expected KEY=VALUE, got {word!r}")
            try:
                super().__call__(parser, namespace, [word], option)
            except (AssertionError, RecursionError) as error:
                raise argparse.ArgumentError(self, f"brackets that do not match, or too many, in {word!r}") from error


def framework_of(config: Path) -> ModuleType:
    """Return the module with ``train`` and ``test`` that runs a config.

    Args:
        config: A ``.py`` file is MMEngine's, a ``.yml`` or ``.yaml`` file BasicSR's.

    Raises:
        FileNotFoundError: If there is no such file, or it ends otherwise.
    """
    bridges = {".py": "mmagic", ".yml": "basicsr", ".yaml": "basicsr"}
    if not config.is_file() or config.suffix not in bridges:
        raise FileNotFoundError(f"{config}: expected an existing .py (MMEngine) or .yml (BasicSR) config")
    bridge = f"panet_plugin.frameworks.{bridges[config.suffix]}"
    importlib.import_module(bridge)
    return importlib.import_module(f"{bridge}.run")


@contextmanager
def report_errors() -> Iterator[None]:
    """End the program with a message where a file or package is missing, unfit or not to be written."""
    try:
        yield
    except (PanetError, OSError, ImportError) as error:
        # A process that loads data passes its traceback on as the message.
        found = re.match(r"Caught (\w+) in DataLoader worker process.*\n(?:\S*\.)?\1: (.*)", str(error), re.DOTALL)
        sys.exit(f"error: {found[2].strip() if found else error}")
