"""Reduction of JPEG compression artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from panet_plugin.degradations import closest_quality, compress_jpeg
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.tasks.base import Level, Task


@dataclass(frozen=True)
class ArtifactReduction(Task):
    """Reduction of JPEG compression artifacts (paper, section 4.4).

    Args:
        quality: libjpeg's quality, 1 to 100, or an inclusive range (low, high) to draw it from.
        luma_only: Restore luma, as published, instead of RGB.
    """

    quality: int | tuple[int, int] = 10
    luma_only: bool = True

    name = "artifact_reduction"
    short = "car"
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
            # Raises errors for invalid values here, not during training.
            compress_jpeg(np.zeros((1, 1), np.uint8), quality)

    @property
    def channels(self) -> int:
        """1 for luma, otherwise 3."""
        return 1 if self.luma_only else 3

    @property
    def level(self) -> str:
        """``q10``."""
        return f"q{self.quality}" if not isinstance(self.quality, tuple) else "q{}-{}".format(*self.quality)

    def degrade(self, reference: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Compress and decode; only a quality that is drawn from a range is random."""
        low, high = self.levels
        quality = low if low == high else int(np.random.default_rng(rng).integers(low, high, endpoint=True))
        return compress_jpeg(reference, quality, self.luma_only)

    def read_level(self, head: Image.Image, read: Callable[[], np.ndarray]) -> Level:
        """Estimate the quality of a JPEG file from the quantization table of its luma."""
        if not isinstance(head, JpegImageFile):
            return Level(None, f"no quantization tables in a {head.format} file")
        # The first component is the luma; its last entry is the number of its table.
        table = head.quantization.get(head.layer[0][-1])
        if table is None:
            return Level(None, "its quantization tables are missing")
        quality, exact = closest_quality(table)
        return Level(quality, "from its quantization tables" if exact else "the closest to its quantization tables")
