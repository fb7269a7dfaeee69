"""What is compared: functions, networks, and folders of results that somebody else made."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from panet_plugin.data.manifest import sha256_of
from panet_plugin.degradations import imresize
from panet_plugin.errors import EvaluationError, list_lines
from panet_plugin.evaluation.image_sets import ImageSet, Sample, find_images, image_size, read_as
from panet_plugin.inference import Restorer
from panet_plugin.tasks import Task


class Method(ABC):
    """One way to restore images.

    Args:
        name: As it stands in tables and in the names of folders: letters, digits and ``_ . + -``.

    Raises:
        EvaluationError: If the name has other characters.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[\w+-][\w.+-]*", name):
            raise EvaluationError(f"a method's name has letters, digits and _ . + - alone, got {name!r}")
        self.name = name

    def check(self, sets: Iterable[ImageSet], task: Task) -> None:  # noqa: B027 - most have nothing to check
        """Raise EvaluationError if the method cannot restore these sets."""

    @abstractmethod
    def identity(self, sample: Sample) -> str:
        """Return what the result depends on besides the degraded image, as a key of the cache."""

    @abstractmethod
    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the restored image ``(H, W, C)``."""


class FunctionMethod(Method):
    """A function that restores images; threads may call it at the same time.

    Args:
        name: See :class:`Method`.
        function: Takes a degraded ``(h, w, C)`` image of 8 bit, returns the restored ``(H, W, C)``.
        identity: Changes with what the function computes; part of the cache's keys.
    """

    def __init__(self, name: str, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], identity: str) -> None:
        super().__init__(name)
        self._function = function
        self._identity = identity

    def identity(self, sample: Sample) -> str:
        """Return what was given."""
        return self._identity

    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Call the function."""
        return self._function(sample.degraded)


class NetworkMethod(Method):
    """A network, on one image at a time.

    Args:
        name: See :class:`Method`.
        load: Returns the network; called when the first image is not in the cache.
        identity: Changes with the weights and the network; part of the cache's keys.
        device: Where the network runs.
        cut: Pixels that a piece of the original's recursive cut may not reach, see
            :func:`~panet_plugin.inference.piece_limit`; ``None`` is for whole images.
        window: Of attention, see :class:`~panet_plugin.inference.Restorer`.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], nn.Module],
        identity: str,
        device: str | torch.device = "cpu",
        cut: int | None = None,
        window: int | str | None = "trained",
    ) -> None:
        super().__init__(name)
        self._load = load
        self._identity = f"{identity} on {torch.device(device).type}" + (f", cut below {cut}" if cut else "")
        self._identity += "" if window is None else f", window {window}"
        self._device = device
        self._options: dict[str, Any] = {"window": window, **({"mode": "chop", "limit": cut} if cut else {})}
        self._lock = threading.Lock()

    @cached_property
    def _restorer(self) -> Restorer:
        return Restorer(self._load(), self._device, **self._options)

    def identity(self, sample: Sample) -> str:
        """Return what was given, the device, the cut and the window."""
        return self._identity

    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Run the network.

        Raises:
            EvaluationError: If it does not take such images.
        """
        image = sample.degraded
        with self._lock:
            restorer = self._restorer
            try:
                restored = restorer.restore(image[..., 0] if image.shape[2] == 1 else image)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                channels = "gray" if image.shape[2] == 1 else "RGB"
                raise EvaluationError(
                    f"{self.name}: the network does not restore the {channels} images of this task; on "
                    f"{sample.path} ({image.shape[0]}x{image.shape[1]}) it says: {error}"
                ) from error
        return np.atleast_3d(restored)


class FolderMethod(Method):
    """Result images of any program: ``FOLDER/NAME.png``, or ``FOLDER/SET/NAME.png`` where sets are several.

    Args:
        name: See :class:`Method`.
        folder: Holds one image for every picture of the sets, of its stem and size.
    """

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self._folder = folder
        self._files: dict[str, dict[str, Path]] = {}

    def check(self, sets: Iterable[ImageSet], task: Task) -> None:
        """Compare names and sizes.

        Raises:
            EvaluationError: If some do not match; it lists the files.
        """
        sets = list(sets)
        for images in sets:
            folder = self._folder / images.name
            if not folder.is_dir():
                if len(sets) > 1:
                    raise EvaluationError(f"{self.name}: expected the results of {images.name} in {folder}")
                folder = self._folder
            results = find_images(folder)
            wrong = [f"no result for {path}" for stem, path in images.files.items() if stem not in results]
            wrong += [f"no picture for {path}" for stem, path in results.items() if stem not in images.files]
            if not wrong:
                for stem, path in images.files.items():
                    size = tuple(side - side % task.scale for side in image_size(path))
                    if image_size(results[stem]) != size:
                        found = "x".join(map(str, image_size(results[stem])))
                        wrong.append(f"{results[stem]} is {found}, expected {size[0]}x{size[1]} as {path}")
            if wrong:
                raise EvaluationError(f"{self.name}: {folder} does not match {images.name}:{list_lines(wrong)}")
            self._files[images.name] = results

    def identity(self, sample: Sample) -> str:
        """Return the hash of the result."""
        return sha256_of(self._file(sample))

    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Read the result."""
        return read_as(sample.task, self._file(sample))

    def _file(self, sample: Sample) -> Path:
        return self._files[sample.dataset][sample.name]


def degraded(task: Task) -> Method:
    """Return the method that does nothing.

    Raises:
        EvaluationError: For super-resolution, where degraded images are of another size.
    """
    if task.scale != 1:
        raise EvaluationError(f"degraded images of {task.level} are smaller than restored ones: compare with bicubic")
    return FunctionMethod("degraded", lambda image: image, "degraded")


def bicubic(task: Task) -> Method:
    """Return bicubic interpolation, as MATLAB's.

    Raises:
        EvaluationError: If the task is not super-resolution.
    """
    if task.scale == 1:
        raise EvaluationError(f"bicubic is a method of super-resolution, not of {task.name}: use degraded")
    return FunctionMethod("bicubic", lambda image: imresize(image, task.scale), "bicubic")


#: Methods that need no file, by name; each takes the task.
BASELINES: dict[str, Callable[[Task], Method]] = {"degraded": degraded, "bicubic": bicubic}


def unique(methods: Sequence[Method]) -> None:
    """Raise EvaluationError unless there are methods and their names differ."""
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"expected methods of different names, got {', '.join(names) or 'none'}")
