"""The tasks, each defined in one module: degradation, channels, protocol, network and published settings."""

from dataclasses import fields
from typing import Any

from panet_plugin.errors import TaskError
from panet_plugin.tasks.artifact_reduction import ArtifactReduction
from panet_plugin.tasks.base import PUBLISHED_TRAINING, Task, image_rng
from panet_plugin.tasks.deblurring import Deblurring
from panet_plugin.tasks.demosaicing import Demosaicing
from panet_plugin.tasks.denoising import Denoising
from panet_plugin.tasks.super_resolution import SuperResolution

__all__ = [
    "PUBLISHED_TRAINING",
    "TASKS",
    "ArtifactReduction",
    "Deblurring",
    "Demosaicing",
    "Denoising",
    "SuperResolution",
    "Task",
    "TaskError",
    "image_rng",
    "make_task",
]

#: Tasks by name.
TASKS: dict[str, type[Task]] = {
    task.name: task for task in (SuperResolution, Denoising, Demosaicing, ArtifactReduction, Deblurring)
}


def make_task(name: str, **parameters: Any) -> Task:
    """Return a task with the parameters of its degradation.

    Args:
        name: A key of :data:`TASKS`.
        **parameters: Fields of that task.

    Raises:
        TaskError: If there is no such task or parameter, or a value is out of range.
    """
    if name not in TASKS:
        raise TaskError(f"task must be one of {', '.join(TASKS)}, got {name!r}")
    known = [field.name for field in fields(TASKS[name])]
    if unknown := sorted(parameters.keys() - set(known)):
        raise TaskError(f"{name} has the parameters {', '.join(known)}, got {', '.join(unknown)}")
    try:
        return TASKS[name](**parameters)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{name}: {error}") from error
