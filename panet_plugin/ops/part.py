"""Features of a part of an image, computed as they are in the whole: where the part lies, and its pyramid."""

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
        """Return where the part lies when the image is transposed, if it is, and then flipped along axes -2 and -1."""
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
    """Let pyramid attention with a window take its features for those of a part of an image; None is the whole.

    Every pixel far enough from the borders of the part, for its window and all the layers around the attention, then
    has the features that it has in the whole image.
    """
    before = current_part()
    _current.part = part
    try:
        yield
    finally:
        _current.part = before


def current_part() -> Part | None:
    """Return the part that features are of; None for the whole."""
    return getattr(_current, "part", None)


def build_part_pyramid(features: Tensor, scales: Sequence[float], part: Part) -> tuple[list[Tensor], list[int]]:
    """Build what there is of the whole image's pyramid in a part of it.

    Args:
        features: ``(N, C, part.height, part.width)``.
        scales: Factors in (0, 1], as for :func:`~panet_plugin.ops.build_pyramid`.
        part: Where the features lie.

    Returns:
        For every scale the pixels that depend on nothing outside the part, and where those lie: the argument ``frame``
        of :func:`~panet_plugin.ops.pyramid_attention`.

    Raises:
        ValueError: If the features are not of the part's size, or it is too small for a pixel of every level.
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
            raise ValueError(f"a part of {part.height}x{part.width} has no pixel of a level of scale {scale:g}")
        levels.append(level)
        frame += [top, left, *size]
    return levels, frame
