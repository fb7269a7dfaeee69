"""Benchmark sets: folders of clean images, and their degraded images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panet_plugin.data import BadImageError, read_image
from panet_plugin.data.image_reader import READABLE, SUFFIXES, list_images
from panet_plugin.data.manifest import sha256_of
from panet_plugin.errors import EvaluationError, list_lines
from panet_plugin.tasks import Task

#: EXIF tag of the orientation; values from 5 on swap the sides.
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageSet:
    """A benchmark set.

    Attributes:
        name: Name in tables.
        files: The images by stem.
    """

    name: str
    files: dict[str, Path]

    @classmethod
    def open(cls, folder: str | os.PathLike) -> ImageSet:
        """Find the images of a folder, or of the folder ``HR`` in it.

        Raises:
            EvaluationError: If there are no images, or two have the same stem.
        """
        folder = Path(folder)
        holding = folder / "HR" if (folder / "HR").is_dir() else folder
        name = folder.resolve()
        files = find_images(holding)
        if not files:
            raise EvaluationError(f"{holding}: not a folder, or contains no images ({', '.join(sorted(SUFFIXES))})")
        return cls(name.parent.name if name.name == "HR" else name.name, files)


@dataclass(frozen=True)
class Sample:
    """An image of a set under a task; it is read and degraded on first use.

    Attributes:
        dataset: Name of its set.
        path: File of the clean image.
        task: The task.
        seed: Seed of the degradation.
    """

    dataset: str
    path: Path
    task: Task
    seed: int = 0

    @property
    def name(self) -> str:
        """The stem of the file."""
        return self.path.stem

    @cached_property
    def digest(self) -> str:
        """Hash of the file."""
        return sha256_of(self.path)

    @cached_property
    def reference(self) -> NDArray[np.uint8]:
        """The reference for scoring, ``(H, W, C)``."""
        return read_as(self.task, self.path)

    @cached_property
    def degraded(self) -> NDArray[np.uint8]:
        """The input of methods, ``(h, w, C)``."""
        return self.task.degrade_image(self.reference, self.name, self.seed)


def find_images(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by stem, sorted; empty if there is no such folder.

    Raises:
        EvaluationError: If two have the same stem.
    """
    paths = list_images(folder)
    found = {path.stem: path for path in paths}
    if len(found) < len(paths):
        twins = [str(path) for path in paths if found[path.stem] != path]
        raise EvaluationError(f"{folder}: images whose names differ only in their suffix:{list_lines(twins)}")
    return found


def read_as(task: Task, path: Path) -> NDArray[np.uint8]:
    """Read an image as a task's reference.

    Raises:
        BadImageError: If the file is not an image, or not suitable for the task.
    """
    image = read_image(path)
    try:
        return task.reference(image)
    except (TypeError, ValueError) as error:
        raise BadImageError(f"{path}: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of an image file without decoding it.

    Raises:
        BadImageError: If it is not an image.
    """
    try:
        with Image.open(path, formats=READABLE) as file:
            turned = file.getexif().get(_ORIENTATION, 1) >= 5
            return file.size if turned else file.size[::-1]
    # Damaged files raise many kinds of errors.
    except Exception as error:
        raise BadImageError(f"{path}: not a readable image") from error
