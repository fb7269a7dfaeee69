"""Low-quality images and their ground truth."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from panet_plugin.data.clean import CleanImages
from panet_plugin.data.pictures import BadImageError

logger = logging.getLogger(__name__)


class PairedImages:
    """Pairs of two LMDBs as data_prep/ writes them, or of two folders, whose images have the same names.

    Args:
        lq: The low-quality images.
        gt: The ground truth.
        scale: Factor from the sides of the low-quality images to those of the ground truth.

    Attributes:
        names: Of the pairs, sorted.
        shards: For every pair the number of the ground truth's shard; see :class:`CleanImages`.

    Raises:
        FileNotFoundError: If one of them does not exist or is empty.
        ValueError: If an image is in one of them alone.
    """

    def __init__(self, lq: str | os.PathLike, gt: str | os.PathLike, scale: int = 1) -> None:
        self.lq, self.gt, self.scale = CleanImages(lq), CleanImages(gt), scale
        if lonely := sorted(set(self.lq.names).symmetric_difference(self.gt.names)):
            raise ValueError(
                f"{self.lq.root} and {self.gt.root}: expected the same images in both, but {len(lonely)} are in one "
                f"alone, such as {lonely[0]}"
            )
        self.names, self.shards = self.gt.names, self.gt.shards

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str, patch: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the low-quality image ``(h, w, 3)`` and its ground truth ``(h * scale, w * scale, 3)``, RGB.

        Rows and columns of the ground truth that are beyond the last whole pixel of the other are cut off.

        Args:
            name: One of ``names``.
            patch: Side of the patches that are to be cut from the low-quality image.

        Raises:
            BadImageError: If an image is missing, damaged, smaller than a patch or of another size than ``scale`` says.
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
    """Takes the next image in the place of one that cannot be read, a limited number of times in every process.

    Args:
        most: How many times; 0 makes the first one an error.
    """

    def __init__(self, most: int = 0) -> None:
        self.left = most

    def read(self, read: Callable[[str], Any], names: Sequence[str], index: int) -> Any:
        """Return what ``read`` returns for the image at ``index``, or for one after it.

        Raises:
            BadImageError: If an image cannot be read, and no more may be skipped.
        """
        name = names[index]
        while True:
            try:
                return read(name)
            except BadImageError as error:
                if self.left == 0:
                    raise
                self.left -= 1
                logger.warning("%s; the next image is taken, and %d more may be skipped", error, self.left)
                index = (index + 1) % len(names)
                name = names[index]
