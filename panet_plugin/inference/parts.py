"""Restoring part by part: reading parts of an image and assembling those of the result."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

#: Returns rows and columns of images, ``(N, C, h, w)``.
Read = Callable[[slice, slice], Tensor]


class Restored(NamedTuple):
    """A part of a result.

    Attributes:
        top: First row, in pixels of the result.
        left: First column.
        images: ``(N, C, h, w)``.
    """

    top: int
    left: int
    images: Tensor


def assemble(parts: Iterable[Restored], height: int, width: int) -> Tensor:
    """Assemble the parts, at least one, to the result ``(N, C, height, width)``."""
    result = None
    for top, left, images in parts:
        if result is None:
            result = images.new_empty(*images.shape[:2], height, width)
        result[..., top : top + images.shape[-2], left : left + images.shape[-1]] = images
    if result is None:
        raise ValueError("no parts")
    return result
