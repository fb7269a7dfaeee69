"""Super-resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from panet_plugin.degradations import imresize
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.tasks.base import Task


@dataclass(frozen=True)
class SuperResolution(Task):
    """Bicubic super-resolution (paper, section 4.5).

    Args:
        scale: Upscaling factor: 2, 3 or 4 as published.
    """

    scale: int = 2

    name = "super_resolution"
    short = "sr"
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
        """Return the image as :meth:`Task.reference`, cropped to a multiple of the scale at the right and the bottom.

        Raises:
            ValueError: If a side of the image has fewer pixels than the scale.
        """
        image = super().reference(image)
        height, width = (side - side % self.scale for side in image.shape[:2])
        if not (height and width):
            raise ValueError(f"a {image.shape[0]}x{image.shape[1]} image is too small for {self.level}")
        return image[:height, :width]

    def degrade(self, reference: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Downscale with MATLAB's bicubic; nothing is random."""
        return imresize(reference, 1 / self.scale)
