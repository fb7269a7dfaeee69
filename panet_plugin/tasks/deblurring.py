"""Deblurring."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from panet_plugin.degradations import add_gaussian_noise
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.tasks.base import Task


@dataclass(frozen=True)
class Deblurring(Task):
    """Removal of Gaussian blur with a little noise. Nothing is published for PANet.

    Args:
        blur: Standard deviation of the blur in pixels, or a range (low, high) to draw it from.
        noise: Standard deviation of the noise on the 0..255 scale.
    """

    blur: float | tuple[float, float] = field(default=1.6, metadata={"option": float})
    noise: float = field(default=2, metadata={"option": float})

    name = "deblurring"
    title = "Deblurring"
    protocol = PROTOCOLS["dn_rgb"]
    strength = "blur"
    settings = ()
    published = ""

    def __post_init__(self) -> None:
        # Raises errors for invalid values here, not during training.
        add_gaussian_noise(np.zeros(1, np.uint8), self.noise, 0)
        if isinstance(self.blur, Iterable):
            object.__setattr__(self, "blur", tuple(self.blur))
        low, high = self.levels if not isinstance(self.blur, tuple) or len(self.blur) == 2 else (0, 0)
        if not 0 < low <= high < math.inf:
            raise ValueError(f"blur must be a number above 0 or a range (low, high) of them, got {self.blur!r}")

    @property
    def level(self) -> str:
        """``b1.6``."""
        return "b{:g}-{:g}".format(*self.blur) if isinstance(self.blur, tuple) else f"b{self.blur:g}"

    def degrade(self, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Blur with reflection at the borders, then add noise; round to 8 bits after each."""
        low, high = self.levels
        blur = low if low == high else rng.uniform(low, high)
        image = cv2.GaussianBlur(reference.astype(np.float64), (0, 0), blur, borderType=cv2.BORDER_REFLECT)
        blurred = np.rint(image).astype(np.uint8).reshape(reference.shape)
        return add_gaussian_noise(blurred, self.noise, rng)
