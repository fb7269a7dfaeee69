"""The bundled models: small trained networks included in the package."""

from pathlib import Path
from typing import Any

from panet_plugin.errors import CheckpointError
from panet_plugin.tasks import Task, make_task
from panet_plugin.weights.files import read_task

#: Folder of the ``.safetensors`` files, each with its task.
BUNDLE = Path(__file__).parent / "bundled"


def list_bundled() -> dict[Path, Task]:
    """Return the bundled files and the tasks of their networks.

    Raises:
        CheckpointError: If a file is damaged or has no task.
    """
    found = {}
    for path in sorted(BUNDLE.glob("*.safetensors")):
        if (task := read_task(path)) is None:
            raise CheckpointError(f"{path}: a bundled file without a task")
        found[path] = task
    return found


def bundled(task: str, *, level: float | None = None, channels: int | None = None, **parameters: Any) -> Path:
    """Return the bundled file for a task.

    Args:
        task: Name of the task.
        level: Level of the degradation if the parameters do not set it: the network trained for the nearest level is
            selected. If it is also None, a network for a range of levels is preferred, then one for the default level.
        channels: Channels of the image, 3 or 1: of the networks for a level, one with as many channels is preferred.
            None: the task's default.
        **parameters: Required parameters of the task. A network for a range of levels fits each of them; the one with
            the narrowest range is preferred.

    Raises:
        CheckpointError: If there is none; the message lists the available ones.
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
    raise CheckpointError(f"no bundled model for {words}; available: {listing}: pass a checkpoint")
