"""Folders of clean pictures, and one of them as the methods see it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from panet_plugin.data import BadImageError, read_image
from panet_plugin.data.manifest import sha256_of
from panet_plugin.data.pictures import READABLE, SUFFIXES, list_pictures
from panet_plugin.errors import EvaluationError, list_lines
from panet_plugin.tasks import Task

#: EXIF's tag of the orientation; from 5 on it exchanges the sides.
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageSet:
    """A benchmark set.

    Attributes:
        name: As it stands in tables.
        files: The pictures by stem.
    """

    name: str
    files: dict[str, Path]

    @classmethod
    def open(cls, folder: str | os.PathLike) -> ImageSet:
        """Find the pictures of a folder, or of the folder ``HR`` in it.

        Raises:
            EvaluationError: If there is no picture, or two have the same stem.
        """
        folder = Path(folder)
        pictures = folder / "HR" if (folder / "HR").is_dir() else folder
        name = folder.resolve()
        files = find_images(pictures)
        if not files:
            raise EvaluationError(f"{pictures}: no such folder, or no pictures in it ({', '.join(sorted(SUFFIXES))})")
        return cls(name.parent.name if name.name == "HR" else name.name, files)


@dataclass(frozen=True)
class Sample:
    """One picture of a set, under a task; what it takes to read and degrade it is done when first asked for.

    Attributes:
        dataset: Name of its set.
        path: The clean picture.
        task: How it is degraded.
        seed: Of the degradation.
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
        """What restored images are compared with, ``(H, W, C)``."""
        return read_as(self.task, self.path)

    @cached_property
    def degraded(self) -> NDArray[np.uint8]:
        """What methods are given, ``(h, w, C)``."""
        return self.task.degrade_image(self.reference, self.name, self.seed)


def find_images(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by stem, in order of their names; none if there is no such folder.

    Raises:
        EvaluationError: If two have the same stem.
    """
    paths = list_pictures(folder)
    found = {path.stem: path for path in paths}
    if len(found) < len(paths):
        twins = [str(path) for path in paths if found[path.stem] != path]
        raise EvaluationError(f"{folder}: pictures whose names differ in the suffix alone:{list_lines(twins)}")
    return found


def read_as(task: Task, path: Path) -> NDArray[np.uint8]:
    """Read a picture as a task's reference.

    Raises:
        BadImageError: If the file is no picture, or unfit for the task.
    """
    image = read_image(path)
    try:
        return task.reference(image)
    except (TypeError, ValueError) as error:
        raise BadImageError(f"{path}: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return rows and columns of an image file without decoding it.

    Raises:
        BadImageError: If it is no image.
    """
    try:
        with Image.open(path, formats=READABLE) as file:
            turned = file.getexif().get(_ORIENTATION, 1) >= 5
            return file.size if turned else file.size[::-1]
    # As many as there are ways to be damaged.
    except Exception as error:
        raise BadImageError(f"{path}: not a readable image") from error
