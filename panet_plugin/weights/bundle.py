"""The small trained networks that come with the package."""

from pathlib import Path
from typing import Any

from panet_plugin.tasks import Task, make_task
from panet_plugin.weights.errors import CheckpointError
from panet_plugin.weights.files import read_task

#: Holds one ``.safetensors`` file per network, which says its task.
BUNDLE = Path(__file__).parent / "bundled"


def list_bundled() -> dict[Path, Task]:
    """Return the files that come with the package, and what each was trained for.

    Raises:
        CheckpointError: If a file is damaged or says no task.
    """
    found = {}
    for path in sorted(BUNDLE.glob("*.safetensors")):
        if (task := read_task(path)) is None:
            raise CheckpointError(f"{path}: a bundled file that does not say its task")
        found[path] = task
    return found


def bundled(task: str, **parameters: Any) -> Path:
    """Return the file for a task that comes with the package.

    Args:
        task: Name of the task.
        **parameters: Those of its parameters that matter. A network for a range of levels is one for each of them.
            Where a parameter is left out, one for its default is preferred, and then one for the very level.

    Raises:
        CheckpointError: If there is none; the message says what there is.
        ValueError: If there is no such task or parameter, or a value is out of range.
    """
    there, fitting = list_bundled(), []
    for path, other in there.items():
        if other.name == task:
            wanted = make_task(**{**other.describe(), **parameters})
            if other.covers(wanted):
                usual = other.covers(make_task(task, **parameters))
                fitting.append((not usual, other != wanted, path))
    if fitting:
        return min(fitting)[-1]
    asked = " ".join([task, *(f"{name}={value}" for name, value in parameters.items())])
    names = [" ".join(f"{name}={value}" for name, value in other.describe().items()) for other in there.values()]
    listing = "; ".join(names).replace("name=", "") or "nothing"
    raise CheckpointError(f"no weights for {asked} come with the package, which has {listing}: give a checkpoint")
