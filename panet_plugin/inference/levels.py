"""Estimating the level of degradation from image files."""

from pathlib import Path

import numpy as np
from PIL import Image

from panet_plugin.data.image_reader import open_head, read_stored
from panet_plugin.inference.color import adapt
from panet_plugin.tasks import Task
from panet_plugin.tasks.base import Level


def read_channels(path: Path) -> int:
    """Return 1 for a gray image, else 3; errors as :func:`read_level`."""
    with open_head(path) as head:
        return 1 if Image.getmodebase(head.mode) == "L" else 3


def read_level(path: Path, task: Task) -> Level:
    """Estimate the level of a degradation from an image file.

    Args:
        path: The file.
        task: A task with a ``strength``.

    Raises:
        BadImageError: If the file is damaged or no image.
        OSError: If it cannot be read.
    """

    def read() -> np.ndarray:
        return adapt(read_stored(path).pixels, task.channels, task=task).read(slice(None), slice(None))

    with open_head(path) as head:
        return task.read_level(head, read)
