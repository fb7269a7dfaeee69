"""Demosaicing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from panet_plugin.degradations import mosaic_bayer
from panet_plugin.degradations.mosaic import PATTERNS
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.tasks.base import Task


@dataclass(frozen=True)
class Demosaicing(Task):
    """Interpolation of the two missing channels of each pixel of a Bayer mosaic (paper, section 4.3).

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
    survives_flips = False
    fixed_channels = True

    def __post_init__(self) -> None:
        mosaic_bayer(np.zeros((1, 1, 3), np.uint8), self.pattern)

    def degrade(self, reference: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return the sparse mosaic; nothing is random."""
        return mosaic_bayer(reference, self.pattern)

    def as_degraded(self, pixels: np.ndarray) -> np.ndarray:
        """Return the sparse RGB mosaic for a sparse mosaic or an image with a sensor's single channel.

        Raises:
            ValueError: If a pixel has values in channels that the sensor does not measure there.
        """
        if pixels.ndim == 2 or (pixels == pixels[..., :1]).all():
            return mosaic_bayer(np.repeat(np.atleast_3d(pixels)[..., :1], 3, axis=2), self.pattern)
        if (pixels == mosaic_bayer(pixels, self.pattern)).all():
            return pixels
        fitting = [other for other in PATTERNS if (pixels == mosaic_bayer(pixels, other)).all()]
        advice = f"; it fits {fitting[0]} (--pattern {fitting[0]})" if fitting else ""
        raise ValueError(
            f"not a {self.pattern} mosaic: expected one channel, or RGB with zeros in the two channels that each pixel "
            f"lacks{advice}"
        )
