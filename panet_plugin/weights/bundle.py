"""The small trained networks that come with the package."""

from pathlib import Path
from typing import Any

from panet_plugin.errors import CheckpointError
from panet_plugin.tasks import Task, make_task
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
            raise CheckpointError(f"{path}: a bundled file without a task")
        found[path] = task
    return found


def bundled(task: str, *, level: float | None = None, channels: int | None = None, **parameters: Any) -> Path:
    """Return the file for a task that comes with the package.

    Args:
        task: Name of the task.
        level: Of the degradation, where no parameter says it: the nearest that a network was trained for counts. If it
            is None too, a network for many levels is preferred, and then one for the task's default.
        channels: Of the picture, 3 or 1; of networks for the same level, one with as many is preferred. None is as many
            as the task has by default.
        **parameters: Those of the task's parameters that matter. A network for a range of levels is one for each of
            them; the one for the fewest levels is preferred.

    Raises:
        CheckpointError: If there is none; the message says what there is.
        ValueError: If there is no such task or parameter, or a value is out of range.
    """
    asked = make_task(task, **parameters)
    known = level is not None or asked.strength in parameters
    there, fitting = list_bundled(), []
    for path, other in there.items():
        if other.name == task and other.covers(make_task(**{**other.describe(), **parameters})):
            low, high = other.levels
            gap = 0 if level is None else max(low - level, level - high, 0)
            width = high - low if known else low - high
            fitting.append((gap, other.channels != (channels or asked.channels), width, not other.covers(asked), path))
    if fitting:
        return min(fitting)[-1]
    words = " ".join([task, *(f"{name}={value}" for name, value in parameters.items())])
    names = [" ".join(f"{name}={value}" for name, value in other.describe().items()) for other in there.values()]
    listing = "; ".join(names).replace("name=", "") or "nothing"
    raise CheckpointError(f"no bundled weights for {words}; the package has {listing}: pass a checkpoint")
