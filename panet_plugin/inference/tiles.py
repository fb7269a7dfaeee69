"""Overlapping tiles of one size, blended so that no seam is visible."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Axis(NamedTuple):
    """How one side of an image is covered.

    Attributes:
        starts: First pixel of every tile, ascending.
        tile: Side of a tile in pixels.
        overlap: See :func:`cover`.
    """

    starts: tuple[int, ...]
    tile: int
    overlap: int

    def weights(self, scale: int = 1) -> Tensor:
        """Return what every tile's pixels count for, ``(tiles, tile * scale)``; at every pixel they add up to 1.

        Where two tiles meet, one fades into the other over ``overlap`` pixels around the middle of what they share.
        The pixels next to an inner border, which the network sees without their surroundings, count for nothing.
        """
        starts = np.array(self.starts)
        meeting = (starts[1:] + starts[:-1] + self.tile) / 2
        centres = (np.arange(self.tile * scale) + 0.5) / scale + starts[:, None]
        # Tile i is what begins at its meeting with the one before and ends at its meeting with the next.
        begun = np.ones_like(centres)
        ended = np.zeros_like(centres)
        begun[1:] = self._fade(centres[1:] - meeting[:, None])
        ended[:-1] = self._fade(centres[:-1] - meeting[:, None])
        return torch.from_numpy((begun - ended).astype(np.float32))

    def _fade(self, distance: np.ndarray) -> np.ndarray:
        """Rise from 0 to 1 over ``overlap`` pixels, at once if that is 0."""
        return np.clip(distance / max(self.overlap, 1e-9) + 0.5, 0, 1)


def cover(length: int, tile: int, overlap: int) -> Axis:
    """Spread tiles evenly over a side.

    Args:
        length: Side of the image in pixels, at least 1.
        tile: Side of a tile; if the image is not longer, the image is the tile.
        overlap: Every pixel of the result comes from tiles that reach at least half as far beyond it, unless the image
            ends. Neighbours share at least twice as many pixels. A network whose receptive field is not wider gives the
            same result as on the whole image.

    Raises:
        ValueError: If the overlap is negative or leaves nothing of a tile.
    """
    if overlap < 0 or tile <= 2 * overlap:
        raise ValueError(
            f"a tile must be longer than twice the overlap, got a tile of {tile} and an overlap of {overlap}"
        )
    if length <= tile:
        return Axis((0,), length, overlap)
    count = -(-(length - 2 * overlap) // (tile - 2 * overlap))
    last = length - tile
    return Axis(tuple(round(index * last / (count - 1)) for index in range(count)), tile, overlap)


def run_tiles(
    run: Callable[[Tensor], Tensor], image: Tensor, scale: int, rows: Axis, columns: Axis, batch: int
) -> Tensor:
    """Restore an image tile by tile.

    Args:
        run: Restores ``(N, C, h, w)``.
        image: ``(C, H, W)``.
        scale: Factor from the sides of a tile to those of what ``run`` returns.
        rows: How the height is covered.
        columns: How the width is covered.
        batch: Tiles that are restored together.

    Returns:
        ``(C, H * scale, W * scale)``.
    """
    height, width = rows.tile * scale, columns.tile * scale
    down, across = rows.weights(scale), columns.weights(scale)
    places = [(i, j) for i in range(len(rows.starts)) for j in range(len(columns.starts))]
    for first in range(0, len(places), batch):
        chosen = places[first : first + batch]
        corners = [(rows.starts[i], columns.starts[j]) for i, j in chosen]
        tiles = [image[:, top : top + rows.tile, left : left + columns.tile] for top, left in corners]
        results = run(torch.stack(tiles))
        if first == 0:
            result = results.new_zeros(results.shape[1], image.shape[1] * scale, image.shape[2] * scale)
        for (i, j), (top, left), restored in zip(chosen, corners, results, strict=True):
            weight = (down[i][:, None] * across[j]).to(restored)
            result[:, top * scale : top * scale + height, left * scale : left * scale + width] += restored * weight
    return result
