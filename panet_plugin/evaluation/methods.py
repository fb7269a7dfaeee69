"""Methods to compare: functions, networks, and folders of existing results."""

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
    """A method that restores images.

    Args:
        name: Name in tables and of folders: letters, digits and ``_ . + -``.

    Raises:
        EvaluationError: If the name contains other characters.
    """

    def __init__(self, name: str) -> None:
        if not re.fullmatch(r"[\w+-][\w.+-]*", name):
            raise EvaluationError(f"the name of a method may contain only letters, digits and _ . + -, got {name!r}")
        self.name = name

    def check(self, sets: Iterable[ImageSet], task: Task) -> None:  # noqa: B027 - most have nothing to check
        """Raise EvaluationError if the method cannot restore these sets."""

    @abstractmethod
    def identity(self, sample: Sample) -> str:
        """Return a key for the cache: everything on which the result depends, except the degraded image."""

    @abstractmethod
    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Return the restored image ``(H, W, C)``."""


class FunctionMethod(Method):
    """A function that restores images and is thread-safe.

    Args:
        name: See :class:`Method`.
        function: Takes a degraded 8-bit image ``(h, w, C)``, returns the restored image ``(H, W, C)``.
        identity: Identifies the function in keys of the cache.
    """

    def __init__(self, name: str, function: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], identity: str) -> None:
        super().__init__(name)
        self._function = function
        self._identity = identity

    def identity(self, sample: Sample) -> str:
        """Return the given identity."""
        return self._identity

    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Call the function."""
        return self._function(sample.degraded)


class NetworkMethod(Method):
    """A network, applied to one image at a time.

    Args:
        name: See :class:`Method`.
        load: Returns the network; called only if the cache lacks an image.
        identity: Identifies the network and its weights in keys of the cache.
        device: Device of the network.
        chop: Restore in pieces of fewer pixels than this, as the original does: see
            :func:`~panet_plugin.inference.piece_limit`. ``None``: whole images.
        window: Window of attention, see :class:`~panet_plugin.inference.Restorer`.
        cut: The former name of ``chop``, for one more release.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], nn.Module],
        identity: str,
        device: str | torch.device = "cpu",
        chop: int | None = None,
        window: int | str | None = "trained",
        cut: int | None = None,
    ) -> None:
        super().__init__(name)
        chop = chop or cut
        self._load = load
        self._identity = f"{identity} on {torch.device(device).type}" + (f", pieces below {chop}" if chop else "")
        self._identity += "" if window is None else f", window {window}"
        self._device = device
        self._options: dict[str, Any] = {"window": window, **({"mode": "chop", "limit": chop} if chop else {})}
        self._lock = threading.Lock()

    @cached_property
    def _restorer(self) -> Restorer:
        return Restorer(self._load(), self._device, **self._options)

    def identity(self, sample: Sample) -> str:
        """Return the given identity with the device, the size of pieces and the window."""
        return self._identity

    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Run the network.

        Raises:
            EvaluationError: If it does not accept such images.
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
                    f"{self.name}: the network does not restore the {channels} images of this task; error on "
                    f"{sample.path} ({image.shape[0]}x{image.shape[1]}): {error}"
                ) from error
        return np.atleast_3d(restored)


class FolderMethod(Method):
    """Existing results: ``FOLDER/NAME.png``, or ``FOLDER/SET/NAME.png`` with several sets.

    Args:
        name: See :class:`Method`.
        folder: Contains a result for every image of the sets, with the same stem and size.
    """

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self._folder = folder
        self._files: dict[str, dict[str, Path]] = {}

    def check(self, sets: Iterable[ImageSet], task: Task) -> None:
        """Compare names and sizes.

        Raises:
            EvaluationError: If some do not match; the message lists the files.
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
            wrong += [f"no image for {path}" for stem, path in results.items() if stem not in images.files]
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
    """Return the method that returns its input.

    Raises:
        EvaluationError: For super-resolution, where degraded images have another size.
    """
    if task.scale != 1:
        raise EvaluationError(f"degraded images of {task.level} are smaller than restored ones: compare with bicubic")
    return FunctionMethod("degraded", lambda image: image, "degraded")


def bicubic(task: Task) -> Method:
    """Return MATLAB's bicubic interpolation.

    Raises:
        EvaluationError: If the task is not super-resolution.
    """
    if task.scale == 1:
        raise EvaluationError(f"bicubic is a method of super-resolution, not of {task.name}: use degraded")
    return FunctionMethod("bicubic", lambda image: imresize(image, task.scale), "bicubic")


#: Methods that need no file, by name; each takes the task.
BASELINES: dict[str, Callable[[Task], Method]] = {"degraded": degraded, "bicubic": bicubic}


def unique(methods: Sequence[Method]) -> None:
    """Raise EvaluationError unless there are methods and their names are distinct."""
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"expected methods with distinct names, got {', '.join(names) or 'none'}")
