"""Denoising."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from panet_plugin.degradations import add_gaussian_noise
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.pixels import PEAK
from panet_plugin.tasks.base import Level, Task

#: Below this, estimates of sigma are affected by fine texture.
LEAST_SIGMA = 2


@dataclass(frozen=True)
class Denoising(Task):
    """Removal of white Gaussian noise (paper, section 4.2).

    Args:
        sigma: Standard deviation on the 0..255 scale, or a range (low, high) to draw it from.
        gray: Restore luma instead of RGB.
    """

    sigma: float | tuple[float, float] = field(default=50, metadata={"option": float})
    gray: bool = False

    name = "denoising"
    title = "Denoising"
    protocol = PROTOCOLS["dn_rgb"]
    strength = "sigma"
    settings = tuple({"sigma": sigma, "gray": gray} for gray in (False, True) for sigma in (10, 30, 50, 70))

    def __post_init__(self) -> None:
        # Raises errors for invalid values here, not during training.
        add_gaussian_noise(np.zeros(1, np.uint8), self.sigma, 0)
        if not isinstance(self.sigma, (int, float)):
            object.__setattr__(self, "sigma", tuple(self.sigma))

    @property
    def channels(self) -> int:
        """1 for gray, otherwise 3."""
        return 1 if self.gray else 3

    @property
    def published(self) -> str:
        """A section for color images only."""
        return "" if self.gray else "color_denoising"

    @property
    def level(self) -> str:
        """``s50``."""
        return f"s{self.sigma:g}" if isinstance(self.sigma, (int, float)) else "s{:g}-{:g}".format(*self.sigma)

    @property
    def piece_limit(self) -> int:
        """6800 for color images, as in the original."""
        return super().piece_limit if self.gray else 6800

    def degrade(self, reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add noise and round to 8 bits."""
        return add_gaussian_noise(reference, self.sigma, rng)

    def read_level(self, head: Image.Image, read: Callable[[], np.ndarray]) -> Level:
        """Estimate the standard deviation of the noise, on the 0..255 scale."""
        # Imported here, since the import is slow.
        from skimage.restoration import estimate_sigma

        image = read()
        with warnings.catch_warnings():
            # For flat channels, which have no noise, and images as narrow as the number of channels.
            warnings.simplefilter("ignore")
            sigma = round(PEAK * np.nan_to_num(estimate_sigma(image, channel_axis=0)).mean())
        how = "estimated from its pixels"
        return Level(sigma, f"{how}, which have hardly any noise" if sigma < LEAST_SIGMA else how, exact=False)
