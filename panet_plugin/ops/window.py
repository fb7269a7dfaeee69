"""The definition of the attention's window for all implementations: which keys a query sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Consecutive pixels along an axis of a map.

    Attributes:
        start: The first pixel, counted from the border of the map.
        count: Number of pixels.
        size: Length of the whole map along this axis.
    """

    start: int
    count: int
    size: int


class Visible(NamedTuple):
    """The keys of a level that each query sees: those in both its range of rows and its range of columns.

    Attributes:
        rows: First row and end for every row of queries: two int64 tensors ``(H,)``.
        columns: The same for every column of queries, ``(W,)``.
    """

    rows: tuple[Tensor, Tensor]
    columns: tuple[Tensor, Tensor]

    def at(self, rows: Tensor, columns: Tensor) -> "Visible":
        """Return the same for some rows and columns of queries, given by their indices."""
        return Visible(
            (self.rows[0][rows], self.rows[1][rows]),
            (self.columns[0][columns], self.columns[1][columns]),
        )


def visible_range(queries: Span, keys: Span, window: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Return which keys along an axis of a level the queries along that axis see.

    The window of a query is ``window`` pixels long and begins ``window // 2`` pixels before it; at the borders of the
    map it is moved inside. The query sees the keys whose centers, mapped to its map by the ratio of the sizes, are
    inside the window or on its first edge, but not on its last. If a small level has no such key, it sees the next one.
    From one query to the next, neither end of the range moves back, nor, on levels that are not larger than the map of
    the queries, forward by more than one key.

    Args:
        queries: Pixels of the map of the queries, to which the window refers.
        keys: Pixels of the level.
        window: Length of the window in pixels, at least 1.
        device: Device of the result; the CPU by default.

    Returns:
        For every query the first key that it sees and the end, counted from ``keys.start``, int64. There is at least
        one key, even if the given part of the level contains none; such results must not be used.
    """
    start = (
        (torch.arange(queries.count, device=device) + (queries.start - window // 2))
        .clamp(max=queries.size - window)
        .clamp(min=0)
    )
    end = (start + window).clamp(max=queries.size)
    first, stop = (
        (2 * keys.size * edge + queries.size - 1).div(2 * queries.size, rounding_mode="floor") for edge in (start, end)
    )
    first = first.clamp(max=keys.size - 1)
    stop = torch.maximum(stop, first + 1)
    # One bound at a time: sizes may be values of a traced program, which are tensors.
    first = (first - keys.start).clamp(min=0).clamp(max=keys.count - 1)
    return first, torch.maximum((stop - keys.start).clamp(max=keys.count), first + 1)


def visible_keys(
    window: int,
    query_size: Sequence[int],
    key_sizes: Sequence[Sequence[int]],
    frame: Sequence[int] = (),
    device: torch.device | None = None,
) -> list[Visible]:
    """Return which keys of every level the queries of a map, or of a part of a map, see.

    Args:
        window: Side of the square in pixels of the map of the queries, at least 1.
        query_size: Height and width of the given queries.
        key_sizes: Height and width of the given keys of every level.
        frame: For a part of a map: top and left of the queries in the whole map, its height and width, and the same for
            every level. Empty for whole maps.
        device: Device of the result; the CPU by default.
    """
    sizes = [query_size, *key_sizes]
    frames = [frame[i : i + 4] for i in range(0, 4 * len(sizes), 4)] if frame else [(0, 0, *size) for size in sizes]
    rows = [Span(top, size[0], height) for (top, _, height, _), size in zip(frames, sizes, strict=True)]
    columns = [Span(left, size[1], width) for (_, left, _, width), size in zip(frames, sizes, strict=True)]
    return [
        Visible(visible_range(rows[0], row, window, device), visible_range(columns[0], column, window, device))
        for row, column in zip(rows[1:], columns[1:], strict=True)
    ]


def seen_by(seen: tuple[Tensor, Tensor], keys: int) -> tuple[Tensor, Tensor]:
    """Return which queries along an axis see each key, as first and end of a range that may be empty.

    Args:
        seen: The keys that each query sees, as :func:`visible_range` returns them.
        keys: Number of keys.
    """
    first, stop = seen
    key = torch.arange(keys)
    return torch.searchsorted(stop, key, right=True), torch.searchsorted(first, key, right=True)


def seen_along(visible: Visible, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return whether rows of queries see rows of a level of the given size, ``(H, h)``, and the same for columns."""
    rows, columns = (
        (key >= first[:, None]) & (key < stop[:, None])
        for (first, stop), key in (
            (edges, torch.arange(count, device=edges[0].device)) for edges, count in zip(visible, size, strict=True)
        )
    )
    return rows, columns


def seen_keys(visible: Visible, size: Sequence[int]) -> Tensor:
    """Return whether a query sees a key of a level of the given height and width, ``(H * W, h * w)``."""
    rows, columns = seen_along(visible, size)
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(2).flatten(0, 1)
