"""The paper's tasks, each described once: degradation, channels, protocol, network, published settings."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np

from panet_plugin.degradations import add_gaussian_noise, compress_jpeg, imresize, mosaic_bayer
from panet_plugin.errors import TaskError
from panet_plugin.metrics import PROTOCOLS, Protocol
from panet_plugin.pixels import PEAK, luma

__all__ = [
    "PUBLISHED_TRAINING",
    "TASKS",
    "ArtifactReduction",
    "Demosaicing",
    "Denoising",
    "SuperResolution",
    "Task",
    "image_rng",
    "make_task",
]

#: How the published networks were trained, whatever the task (paper, section 4.1): patches of so many pixels of the
#: degraded image a side; the learning rate is halved at each milestone.
PUBLISHED_TRAINING = {
    "patch_size": 48,
    "batch_size": 16,
    "loss": "L1Loss",
    "optimizer": {"type": "Adam", "lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8},
    "iterations": 1_000_000,
    "milestones": (200_000, 400_000, 600_000, 800_000),
}


@dataclass(frozen=True)
class Task(ABC):
    """What to restore from what. The fields of a task are the parameters of its degradation.

    Attributes:
        name: Key in :data:`TASKS`.
        title: Words for tables.
        protocol: How results are scored.
        settings: Parameters of every published setting.
        strength: The parameter that may be a range of levels; empty if there is none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    protocol: ClassVar[Protocol]
    settings: ClassVar[tuple[Mapping[str, Any], ...]]
    strength: ClassVar[str] = ""

    @property
    @abstractmethod
    def published(self) -> str:
        """Section of the published tables; empty if there is none."""

    @property
    def scale(self) -> int:
        """Factor from the sides of the degraded image to those of the reference."""
        return 1

    @property
    def channels(self) -> int:
        """Channels of the degraded image and of the reference: 3 for RGB, 1 for gray."""
        return 3

    @property
    def arch(self) -> dict[str, Any]:
        """Registered name and arguments of the network that was published for it."""
        return {"type": "PANet", "in_channels": self.channels}

    @property
    def levels(self) -> tuple[Any, Any]:
        """The least and the greatest value of :attr:`strength`; zeros without such a parameter."""
        value = getattr(self, self.strength, 0)
        return value if isinstance(value, tuple) else (value, value)

    @property
    @abstractmethod
    def level(self) -> str:
        """Strength of the degradation, as columns of the published tables call it; empty if there is one alone."""

    @property
    def label(self) -> str:
        """Title and level, for people: ``Denoising s50``."""
        return " ".join(filter(None, (self.title, self.level)))

    @abstractmethod
    def degrade(self, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the 8-bit degraded image ``(h, w, C)`` of a reference."""

    def reference(self, image: np.ndarray) -> np.ndarray:
        """Return what a restored image is compared with.

        Args:
            image: Clean ``(H, W)``, ``(H, W, 1)`` or RGB ``(H, W, 3)``, 8- or 16-bit. 16 bits are rounded to 8, gray is
                repeated for a task in RGB, RGB becomes luma for a gray task. Three equal channels are gray, however the
                picture was stored: its values are luma already.

        Returns:
            8-bit ``(H, W, C)`` with the task's channels.

        Raises:
            TypeError: If the image is neither 8- nor 16-bit.
            ValueError: If it is of another shape.
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
        """Degrade a whole image for validation: the pixels depend on its name and the seed alone."""
        return self.degrade(reference, image_rng(name, seed))

    def describe(self) -> dict[str, Any]:
        """Return what :func:`make_task` makes this task from."""
        return {"name": self.name, **asdict(self)}

    def covers(self, other: Task) -> bool:
        """Return whether a network that was trained for this task is one for another too.

        Both have the same parameters, except that a range covers the levels and the ranges within it.
        """
        mine, theirs = self.describe(), other.describe()
        return mine.keys() == theirs.keys() and all(_within(mine[key], theirs[key]) for key in mine)


@dataclass(frozen=True)
class SuperResolution(Task):
    """Bicubic super-resolution (paper, section 4.5).

    Args:
        scale: Upscaling factor: 2, 3 or 4 as published.
    """

    scale: int = 2

    name = "super_resolution"
    title = "Super-resolution"
    protocol = PROTOCOLS["sr_y"]
    settings = ({"scale": 2}, {"scale": 3}, {"scale": 4})
    published = "super_resolution"

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int) or self.scale < 1:
            raise ValueError(f"scale must be a whole number of at least 1, got {self.scale!r}")

    @property
    def arch(self) -> dict[str, Any]:
        """PA-EDSR."""
        return {"type": "PAEDSR", "scale": self.scale}

    @property
    def level(self) -> str:
        """``x2``."""
        return f"x{self.scale}"

    def reference(self, image: np.ndarray) -> np.ndarray:
        """Return the image as :meth:`Task.reference`, cut to a multiple of the scale at the right and the bottom.

        Raises:
            ValueError: If the image has fewer pixels a side than the scale.
        """
        image = super().reference(image)
        height, width = (side - side % self.scale for side in image.shape[:2])
        if not (height and width):
            raise ValueError(f"a {image.shape[0]}x{image.shape[1]} image is too small for {self.level}")
        return image[:height, :width]

    def degrade(self, reference: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Shrink as MATLAB's bicubic does; nothing is random."""
        return imresize(reference, 1 / self.scale)


@dataclass(frozen=True)
class Denoising(Task):
    """Removal of white Gaussian noise (paper, section 4.2).

    Args:
        sigma: Standard deviation on the 0..255 scale, or a range (low, high) to draw it from.
        gray: Work on luma instead of RGB.
    """

    sigma: float | tuple[float, float] = 50
    gray: bool = False

    name = "denoising"
    title = "Denoising"
    protocol = PROTOCOLS["dn_rgb"]
    strength = "sigma"
    settings = tuple({"sigma": sigma, "gray": gray} for gray in (False, True) for sigma in (10, 30, 50, 70))

    def __post_init__(self) -> None:
        # For its errors, here and not in the middle of a training.
        add_gaussian_noise(np.zeros(1, np.uint8), self.sigma, 0)
        if not isinstance(self.sigma, (int, float)):
            object.__setattr__(self, "sigma", tuple(self.sigma))

    @property
    def channels(self) -> int:
        """1 if gray, otherwise 3."""
        return 1 if self.gray else 3

    @property
    def published(self) -> str:
        """A section, unless gray."""
        return "" if self.gray else "color_denoising"

    @property
    def level(self) -> str:
        """``s50``."""
        return f"s{self.sigma:g}" if isinstance(self.sigma, (int, float)) else "s{:g}-{:g}".format(*self.sigma)

    def degrade(self, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add noise, and round to 8 bit."""
        return add_gaussian_noise(reference, self.sigma, rng)


@dataclass(frozen=True)
class Demosaicing(Task):
    """Interpolation of the two channels that each pixel of a Bayer mosaic lacks (paper, section 4.3).

    Args:
        pattern: See :func:`panet_plugin.degradations.mosaic_bayer`.
    """

    pattern: str = "GRBG"

    name = "demosaicing"
    title = "Demosaicing"
    protocol = PROTOCOLS["dm_rgb"]
    settings = ({"pattern": "GRBG"},)
    published = "demosaicing"
    level = ""

    def __post_init__(self) -> None:
        mosaic_bayer(np.zeros((1, 1, 3), np.uint8), self.pattern)

    def degrade(self, reference: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the sparse mosaic; nothing is random."""
        return mosaic_bayer(reference, self.pattern)


@dataclass(frozen=True)
class ArtifactReduction(Task):
    """Reduction of JPEG compression artifacts (paper, section 4.4).

    Args:
        quality: libjpeg's quality, 1 to 100, or a range (low, high) to draw it from, both included.
        luma_only: Work on luma, as published, instead of RGB.
    """

    quality: int | tuple[int, int] = 10
    luma_only: bool = True

    name = "artifact_reduction"
    title = "JPEG artifact reduction"
    protocol = PROTOCOLS["car_y"]
    strength = "quality"
    settings = tuple({"quality": quality} for quality in (10, 20, 30, 40))
    published = "compression_artifact_reduction"

    def __post_init__(self) -> None:
        if isinstance(self.quality, Iterable):
            object.__setattr__(self, "quality", tuple(self.quality))
            if len(self.quality) != 2 or not self.quality[0] <= self.quality[-1]:
                raise ValueError(f"quality must be one number or a range (low, high), got {self.quality!r}")
        for quality in self.levels:
            # For its errors, here and not in the middle of a training.
            compress_jpeg(np.zeros((1, 1), np.uint8), quality)

    @property
    def channels(self) -> int:
        """1 if on luma, otherwise 3."""
        return 1 if self.luma_only else 3

    @property
    def level(self) -> str:
        """``q10``."""
        return f"q{self.quality}" if not isinstance(self.quality, tuple) else "q{}-{}".format(*self.quality)

    def degrade(self, reference: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Compress and decode; nothing is random but the quality, if it is drawn from a range."""
        low, high = self.levels
        quality = low if low == high else int(np.random.default_rng(rng).integers(low, high, endpoint=True))
        return compress_jpeg(reference, quality, self.luma_only)


#: Tasks by name.
TASKS: dict[str, type[Task]] = {
    task.name: task for task in (SuperResolution, Denoising, Demosaicing, ArtifactReduction)
}


def _within(range_: Any, value: Any) -> bool:
    """Return whether a value, or a range of them, is another or lies within another that is a range."""
    if not isinstance(range_, tuple):
        return value == range_
    low, high = value if isinstance(value, tuple) else (value, value)
    return range_[0] <= low <= high <= range_[1]


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


def image_rng(name: str, seed: int) -> np.random.Generator:
    """Return a generator that depends on the name of an image, without folders and suffix, and on a seed alone."""
    digest = hashlib.sha256(f"{seed}:{PurePath(name).stem}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))
