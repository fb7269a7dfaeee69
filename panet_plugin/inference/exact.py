"""Restoring an image in pieces that are large enough for the result to equal that of the whole image."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panet_plugin.archs import PyramidAttention
from panet_plugin.archs.rnan import NonLocalBlock
from panet_plugin.inference.parts import Read, Restored, assemble
from panet_plugin.ops.part import Part, part_of_whole

#: Lengths and width of the strips on which a network's reach is measured.
LENGTHS = (256, 512, 1024)
WIDTH = 16


def spans(length: int, count: int, reach: int) -> list[tuple[int, int, int, int]]:
    """Divide a side into pieces of about equal length.

    Args:
        length: Length of the side in pixels.
        count: Number of pieces.
        reach: Context in pixels that a piece needs on each side.

    Returns:
        For every piece start and end, without and with its context.
    """
    edges = [round(index * length / count) for index in range(count + 1)]
    return [(start, stop, max(start - reach, 0), min(stop + reach, length)) for start, stop in pairwise(edges)]


def longest_span(length: int, count: int, reach: int) -> int:
    """Return the length of the longest piece with its context."""
    return max(last - first for _, _, first, last in spans(length, count, reach))


def restore_pieces(
    run: Callable[[Tensor], Tensor],
    read: Read,
    size: tuple[int, int],
    scale: int,
    grid: tuple[int, int],
    reach: int,
) -> Iterator[Restored]:
    """Restore images piece by piece, each with the context that it depends on.

    Args:
        run: Restores ``(N, C, h, w)``; its pyramid attention treats these as a part of the whole.
        read: Reads the images.
        size: Height and width of the images.
        scale: Factor from the sides of a piece to those of what ``run`` returns.
        grid: Rows and columns of pieces.
        reach: See :func:`find_reach`.
    """
    for top, bottom, first, last in spans(size[0], grid[0], reach):
        for left, right, begin, end in spans(size[1], grid[1], reach):
            with part_of_whole(Part(first, begin, last - first, end - begin, size)):
                piece = run(read(slice(first, last), slice(begin, end)))
            down = slice((top - first) * scale, (bottom - first) * scale)
            across = slice((left - begin) * scale, (right - begin) * scale)
            yield Restored(top * scale, left * scale, piece[..., down, across])


def run_pieces(
    run: Callable[[Tensor], Tensor], images: Tensor, scale: int, grid: tuple[int, int], reach: int
) -> Tensor:
    """Restore ``(N, C, H, W)`` by :func:`restore_pieces` to ``(N, C, H * scale, W * scale)``."""
    height, width = images.shape[-2:]
    pieces = restore_pieces(run, lambda rows, columns: images[..., rows, columns], (height, width), scale, grid, reach)
    return assemble(pieces, height * scale, width * scale)


def find_reach(run: Callable[[Tensor], Tensor], network: nn.Module, channels: int, scale: int) -> int | None:
    """Measure the distance, in input pixels, up to which a pixel of a network's output depends on the input.

    NaN propagates through every layer that it reaches. Pyramid attention is replaced by a pooling over everything that
    it may depend on.

    Args:
        run: Restores ``(N, C, h, w)`` with the network.
        network: The network, with the windows of its pyramid attention already set.
        channels: C.
        scale: Factor from the sides of an image to those of the result.

    Returns:
        The distance; None if everything depends on everything, or pieces do not give the result of the whole.
    """
    pools: dict[nn.Module, Callable[..., Tensor]] = {}
    for module in network.modules():
        if isinstance(module, PyramidAttention) and (reach := module.reach) is not None:
            pools[module] = partial(F.max_pool2d, kernel_size=2 * reach + 1, stride=1, padding=reach)
        elif isinstance(module, PyramidAttention | NonLocalBlock):
            return None
    with _replaced(pools):
        along, down = (_spread(run, channels, scale, turn) for turn in (False, True))
    if along is None or down is None or not _gives_the_whole(run, channels, scale, max(along, down)):
        return None
    return max(along, down)


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[..., Tensor]]) -> Iterator[None]:
    """Temporarily replace the forward methods of modules."""
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            del vars(module)["forward"]


def _spread(run: Callable[[Tensor], Tensor], channels: int, scale: int, turn: bool) -> int | None:
    """Return how far a column of an image, or a row, affects the result; None if that is more than half of it."""
    for length in LENGTHS:
        strip = torch.full((1, channels, WIDTH, length), 0.5)
        strip[..., length // 2] = torch.nan
        restored = run(strip.mT).mT if turn else run(strip)
        changed = restored.isfinite().logical_not().any(2).any(1)[0].nonzero()[:, 0] // scale
        if not len(changed):  # the network replaces NaN
            return None
        first, last = int(changed[0]), int(changed[-1])
        if first > 0 and last < length - 1:
            return max(length // 2 - first, last - length // 2)
    return None


def _gives_the_whole(run: Callable[[Tensor], Tensor], channels: int, scale: int, reach: int) -> bool:
    """Compare pieces of two strips with the whole.

    A network may depend on absolute positions, or on distant pixels but not on those in between.
    """
    random = torch.Generator().manual_seed(0)
    strip = torch.rand(1, channels, WIDTH, max(2 * LENGTHS[0], 2 * reach + 3 * WIDTH), generator=random)
    for image, grid in ((strip, (1, 2)), (strip.mT, (2, 1))):
        whole = run(image)
        # Rounding errors of some dtypes are large, but smaller than the effect of missing context.
        tolerance = max(1e-3, 1e-2 * float((whole - whole.mean()).abs().max()))
        if not (run_pieces(run, image, scale, grid, reach) - whole).abs().max() <= tolerance:
            return False
    return True
