"""Features of a part of an image, computed as they are in the whole: where the part lies, and its pyramid."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from panet_plugin.ops.autocast import without_autocast
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


_current: ContextVar[Part | None] = ContextVar("part of a whole image", default=None)


@contextmanager
def part_of_whole(part: Part | None) -> Iterator[None]:
    """Let pyramid attention with a window take its features for those of a part of an image; None is the whole.

    Every pixel far enough from the borders of the part, for its window and all the layers around the attention, then
    has the features that it has in the whole image.
    """
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)


def current_part() -> Part | None:
    """Return the part that features are of; None for the whole."""
    return _current.get()


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
    dtype = torch.promote_types(features.dtype, torch.float32)
    for scale in scales:
        if scale == 1:
            levels.append(features)
            frame += place
            continue
        size = level_size(*part.whole, scale)
        (top, rows), (left, columns) = (
            _resize_matrix(start, count, old, new)
            for start, count, old, new in zip(place[:2], features.shape[-2:], part.whole, size, strict=True)
        )
        if not (len(rows) and len(columns)):
            raise ValueError(f"a part of {part.height}x{part.width} has no pixel of a level of scale {scale:g}")
        with without_autocast(features.device):
            level = rows.to(features.device, dtype) @ (features.to(dtype) @ columns.to(features.device, dtype).t())
        levels.append(level.to(features.dtype))
        frame += [top, left, *size]
    return levels, frame


@lru_cache(maxsize=256)
def _resize_matrix(start: int, count: int, old: int, new: int) -> tuple[int, Tensor]:
    """Return the first pixel of a resized line that ``count`` pixels from ``start`` determine, and the matrix for all.

    The line has ``old`` pixels, resized bicubically to ``new`` as :func:`~panet_plugin.ops.build_pyramid` does.
    """
    with torch.inference_mode(False):
        center = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5
        taps = center.floor().long()[:, None] + torch.arange(-1, 3)
        weights = _cubic((center[:, None] - taps).abs())
        taps = taps.clamp(0, old - 1) - start
        there = ((taps >= 0) & (taps < count)).all(1).nonzero()[:, 0]
        matrix = torch.zeros(len(there), count, dtype=torch.float64)
        matrix.scatter_add_(1, taps[there], weights[there])
        return int(there[0]) if len(there) else 0, matrix


def _cubic(distance: Tensor) -> Tensor:
    """Return the kernel of bicubic interpolation with a = -0.75, as PyTorch's, for distances of at most 2."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)
