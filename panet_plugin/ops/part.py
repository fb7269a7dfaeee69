"""Features of a part of an image that equal those of the whole: the position of the part, and its pyramid."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor

from panet_plugin.ops.bicubic import resize_part
from panet_plugin.ops.pyramid import level_size


class Part(NamedTuple):
    """A rectangle of an image.

    Attributes:
        top: First row.
        left: First column.
        height: In pixels.
        width: In pixels.
        whole: Height and width of the image.
    """

    top: int
    left: int
    height: int
    width: int
    whole: tuple[int, int]

    def turned(self, transposed: bool, axes: Sequence[int]) -> "Part":
        """Return the part's position after an optional transposition and flips along axes -2 and -1."""
        top, left, height, width, whole = self
        if transposed:
            top, left, height, width, whole = left, top, width, height, whole[::-1]
        if -2 in axes:
            top = whole[0] - top - height
        if -1 in axes:
            left = whole[1] - left - width
        return Part(top, left, height, width, whole)


# Every thread has its own. Not a ContextVar, which PyTorch 2.7 does not compile.
_current = threading.local()


@contextmanager
def part_of_whole(part: Part | None) -> Iterator[None]:
    """Make pyramid attention with a window treat its features as those of a part of an image; None for the whole.

    Every pixel that is far enough from the borders of the part, given the window and the layers around the attention,
    then has the same features as in the whole image.
    """
    before = current_part()
    _current.part = part
    try:
        yield
    finally:
        _current.part = before


def current_part() -> Part | None:
    """Return the part of the image to which features belong; None for the whole."""
    return getattr(_current, "part", None)


def build_part_pyramid(features: Tensor, scales: Sequence[float], part: Part) -> tuple[list[Tensor], list[int]]:
    """Build the part of a whole image's pyramid that is determined by a part of the image.

    Args:
        features: ``(N, C, part.height, part.width)``.
        scales: Factors in (0, 1], as for :func:`~panet_plugin.ops.build_pyramid`.
        part: Position of the features.

    Returns:
        For every scale the pixels that do not depend on anything outside the part, and their positions: the argument
        ``frame`` of :func:`~panet_plugin.ops.pyramid_attention`.

    Raises:
        ValueError: If the features do not have the part's size, or it is too small for a pixel of every level.
    """
    if tuple(features.shape[-2:]) != (part.height, part.width):
        raise ValueError(f"expected features of the part's {part.height}x{part.width}, got {tuple(features.shape)}")
    place = [part.top, part.left, *part.whole]
    levels, frame = [], place.copy()
    for scale in scales:
        if scale == 1:
            levels.append(features)
            frame += place
            continue
        size = level_size(*part.whole, scale)
        level, (top, left) = resize_part(features, (part.top, part.left), part.whole, size)
        if not min(level.shape[-2:]):
            raise ValueError(f"a part of {part.height}x{part.width} has no pixel of the level with scale {scale:g}")
        levels.append(level)
        frame += [top, left, *size]
    return levels, frame
