"""Low-quality images and their ground truth."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from panet_plugin.data.clean import CleanImages
from panet_plugin.data.image_reader import BadImageError

logger = logging.getLogger(__name__)


class PairedImages:
    """Pairs of images with the same names in two LMDBs as data_prep/ writes them, or in two folders.

    Args:
        lq: The low-quality images.
        gt: The ground truth.
        scale: Ratio of the sides of the ground truth to those of the low-quality images.

    Attributes:
        names: Names of the pairs, sorted.
        shards: Number of the shard of each pair's ground truth; see :class:`CleanImages`.

    Raises:
        FileNotFoundError: If one of them does not exist or is empty.
        ValueError: If an image is in only one of them.
    """

    def __init__(self, lq: str | os.PathLike, gt: str | os.PathLike, scale: int = 1) -> None:
        self.lq, self.gt, self.scale = CleanImages(lq), CleanImages(gt), scale
        if lonely := sorted(set(self.lq.names).symmetric_difference(self.gt.names)):
            raise ValueError(
                f"{self.lq.root} and {self.gt.root}: expected the same images in both, but {len(lonely)} are in only "
                f"one, such as {lonely[0]}"
            )
        self.names, self.shards = self.gt.names, self.gt.shards

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str, patch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the low-quality image ``(h, w, 3)`` and its ground truth ``(h * scale, w * scale, 3)``, RGB.

        Rows and columns of the ground truth beyond the last whole low-quality pixel are cropped.

        Args:
            name: One of ``names``.
            patch: Minimum side of the low-quality image, in pixels: that of the patches to crop from it.

        Raises:
            BadImageError: If an image is missing, damaged or smaller than a patch, or the sizes do not match ``scale``.
        """
        lq, gt = self.lq.read_patchable(name, patch), self.gt.read(name)
        height, width = (side * self.scale for side in lq.shape[:2])
        if not (height <= gt.shape[0] < height + self.scale and width <= gt.shape[1] < width + self.scale):
            raise BadImageError(
                f"{name} has {lq.shape[0]}x{lq.shape[1]} pixels in {self.lq.root} and {gt.shape[0]}x{gt.shape[1]} in "
                f"{self.gt.root}, expected {height}x{width} there for scale {self.scale}"
            )
        return lq, gt[:height, :width]


class Tolerance:
    """Replaces unreadable images by the next one, a limited number of times per process.

    Args:
        most: Maximum number of replacements; with 0, the first unreadable image is an error.
    """

    def __init__(self, most: int = 0) -> None:
        self.left = most

    def read(self, read: Callable[[str], Any], names: Sequence[str], index: int) -> Any:
        """Return the result of ``read`` for the image at ``index``, or for a later one.

        Raises:
            BadImageError: If an image cannot be read and no more may be skipped.
        """
        name = names[index]
        while True:
            try:
                return read(name)
            except BadImageError as error:
                if self.left == 0:
                    raise
                self.left -= 1
                logger.warning("%s; using the next image instead; %d more may be skipped", error, self.left)
                index = (index + 1) % len(names)
                name = names[index]
