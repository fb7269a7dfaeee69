"""Features of a part of an image that equal those of the whole: the position of the part, and its pyramid."""

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
        """Return the part's position after an optional transposition and flips along axes -2 and -1."""
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
    """Make pyramid attention with a window treat its features as those of a part of an image; None for the whole.

    Every pixel that is far enough from the borders of the part, given the window and the layers around the attention,
    then has the same features as in the whole image.
    """
    token = _current.set(part)
    try:
        yield
    finally:
        _current.reset(token)


def current_part() -> Part | None:
    """Return the part of the image to which features belong; None for the whole."""
    return _current.get()


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
            raise ValueError(f"a part of {part.height}x{part.width} has no pixel of the level with scale {scale:g}")
        with without_autocast(features.device):
            level = rows.to(features.device, dtype) @ (features.to(dtype) @ columns.to(features.device, dtype).t())
        levels.append(level.to(features.dtype))
        frame += [top, left, *size]
    return levels, frame


@lru_cache(maxsize=256)
def _resize_matrix(start: int, count: int, old: int, new: int) -> tuple[int, Tensor]:
    """Return the first pixel of a resized line determined by ``count`` pixels from ``start``, and the matrix for all.

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
    """Return PyTorch's bicubic kernel (a = -0.75) for distances of at most 2."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)
