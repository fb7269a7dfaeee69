"""The interface of tasks, and how the published networks were trained."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image

from panet_plugin.metrics import Protocol
from panet_plugin.pixels import PEAK, luma

#: Training of the published networks for all tasks (paper, section 4.1): side of the patches of degraded images in
#: pixels; the learning rate is halved at each milestone.
PUBLISHED_TRAINING: dict[str, Any] = {
    "patch_size": 48,
    "batch_size": 16,
    "loss": "L1Loss",
    "optimizer": {"type": "Adam", "lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8},
    "iterations": 1_000_000,
    "milestones": (200_000, 400_000, 600_000, 800_000),
}


class Level(NamedTuple):
    """The level of a degradation, estimated from an image file.

    Attributes:
        value: Value of the task's parameter :attr:`Task.strength`; None if unknown.
        how: How it was estimated, or why it is unknown.
        exact: Whether it is exact enough to be compared with a network's single level.
    """

    value: float | None
    how: str
    exact: bool = True


@dataclass(frozen=True)
class Task(ABC):
    """A restoration task. The fields of a task are the parameters of its degradation.

    Attributes:
        name: Key in :data:`TASKS`.
        title: Title in tables.
        protocol: Protocol of scoring.
        settings: Parameters of every published setting.
        strength: The parameter that may be a range of levels; empty if there is none.
        short: Short name on the command line; empty if there is none.
        survives_flips: Whether the task stays the same if a degraded image is flipped or transposed.
        fixed_channels: Whether :meth:`as_degraded` converts every image to the task's channels.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    protocol: ClassVar[Protocol]
    settings: ClassVar[tuple[Mapping[str, Any], ...]]
    strength: ClassVar[str] = ""
    short: ClassVar[str] = ""
    survives_flips: ClassVar[bool] = True
    fixed_channels: ClassVar[bool] = False

    @property
    @abstractmethod
    def published(self) -> str:
        """Section of the published tables; empty if there is none."""

    @property
    def scale(self) -> int:
        """Upscaling factor from the degraded image to the reference."""
        return 1

    @property
    def channels(self) -> int:
        """Channels of the degraded image and of the reference: 3 for RGB, 1 for gray."""
        return 3

    @property
    def arch(self) -> dict[str, Any]:
        """Registered name and arguments of the published network for the task."""
        return {"type": "PANet", "in_channels": self.channels}

    @property
    def piece_limit(self) -> int:
        """The original's limit for pieces in recursive chopping: each has fewer pixels than this."""
        return 6400

    @property
    def levels(self) -> tuple[Any, Any]:
        """The lowest and highest value of :attr:`strength`; zeros without such a parameter."""
        value = getattr(self, self.strength, 0)
        return value if isinstance(value, tuple) else (value, value)

    @property
    @abstractmethod
    def level(self) -> str:
        """Name of the level in columns of the published tables; empty if there is only one level."""

    @property
    def label(self) -> str:
        """Title and level: ``Denoising s50``."""
        return " ".join(filter(None, (self.title, self.level)))

    @abstractmethod
    def degrade(self, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the 8-bit degraded image ``(h, w, C)`` of a reference."""

    def reference(self, image: np.ndarray) -> np.ndarray:
        """Return the reference with which a restored image is compared.

        Args:
            image: Clean ``(H, W)``, ``(H, W, 1)`` or RGB ``(H, W, 3)``, 8- or 16-bit. 16 bits are rounded to 8, gray is
                repeated for an RGB task, RGB is converted to luma for a gray task. Three equal channels count as gray,
                whose values are luma already.

        Returns:
            8-bit ``(H, W, C)`` with the task's channels.

        Raises:
            TypeError: If the image is neither 8- nor 16-bit.
            ValueError: If it has another shape.
        """
        if image.dtype == np.uint16:
            image = np.rint(image / (65535 / PEAK)).astype(np.uint8)
        if image.dtype != np.uint8:
            raise TypeError(f"expected an 8- or 16-bit image, got {image.dtype}")
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
            raise ValueError(f"expected (H, W), (H, W, 1) or RGB (H, W, 3), got shape {image.shape}")
        if self.channels == 1:
            return image[..., :1] if (image == image[..., :1]).all() else luma(image)
        return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)

    def degrade_image(self, reference: np.ndarray, name: str, seed: int = 0) -> np.ndarray:
        """Degrade a whole image for validation: random values depend only on its name and the seed."""
        return self.degrade(reference, image_rng(name, seed))

    def as_degraded(self, pixels: np.ndarray) -> np.ndarray:
        """Convert an image to a degraded image of the task.

        Args:
            pixels: ``(H, W)`` gray or ``(H, W, 3)`` RGB, uint8 or uint16.

        Raises:
            ValueError: If this is not possible.
        """
        return pixels

    def read_level(self, head: Image.Image, read: Callable[[], np.ndarray]) -> Level:
        """Estimate the value of :attr:`strength` from an image file.

        Args:
            head: Header of the file.
            read: Returns the image as input of a network for the task, ``(C, H, W)`` in [0, 1].
        """
        return Level(None, "it cannot be estimated")

    def describe(self) -> dict[str, Any]:
        """Return the arguments for :func:`make_task` of this task."""
        return {"name": self.name, **asdict(self)}

    def covers(self, other: Task) -> bool:
        """Return whether a network trained for this task also fits another one.

        The parameters must be equal, except that a range covers the levels and ranges inside it.
        """
        mine, theirs = self.describe(), other.describe()
        return mine.keys() == theirs.keys() and all(_within(mine[key], theirs[key]) for key in mine)


def _within(range_: Any, value: Any) -> bool:
    """Return whether a value or range equals another one, or lies inside it if that is a range."""
    if not isinstance(range_, tuple):
        return value == range_
    low, high = value if isinstance(value, tuple) else (value, value)
    return range_[0] <= low <= high <= range_[1]


def image_rng(name: str, seed: int) -> np.random.Generator:
    """Return a generator that depends only on a seed and an image's name without folders and suffix."""
    digest = hashlib.sha256(f"{seed}:{PurePath(name).stem}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
