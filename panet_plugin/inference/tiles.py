"""Overlapping tiles of one size, blended so that no seam is visible."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from panet_plugin.inference.parts import Read, Restored


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
        centers = (np.arange(self.tile * scale) + 0.5) / scale + starts[:, None]
        # Tile i is what begins at its meeting with the one before and ends at its meeting with the next.
        begun = np.ones_like(centers)
        ended = np.zeros_like(centers)
        begun[1:] = self._fade(centers[1:] - meeting[:, None])
        ended[:-1] = self._fade(centers[:-1] - meeting[:, None])
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
            ends. Neighbors share at least twice as many pixels. A network whose receptive field is not wider gives the
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


def restore_tiles(
    run: Callable[[Tensor], Tensor], read: Read, scale: int, rows: Axis, columns: Axis, batch: int
) -> Iterator[Restored]:
    """Restore images tile by tile; the parts are rows of all columns.

    Args:
        run: Restores ``(N, C, h, w)``.
        read: Reads the images.
        scale: Factor from the sides of a tile to those of what ``run`` returns.
        rows: How the height is covered.
        columns: How the width is covered.
        batch: Tiles of a row that are restored together.
    """
    height, width = rows.tile * scale, columns.tile * scale
    down, across = rows.weights(scale), columns.weights(scale)
    begun: Tensor | None = None
    for i, top in enumerate(rows.starts):
        band: Tensor
        for first in range(0, len(columns.starts), batch):
            lefts = columns.starts[first : first + batch]
            tiles = [read(slice(top, top + rows.tile), slice(left, left + columns.tile)) for left in lefts]
            results = run(torch.cat(tiles)).split(len(tiles[0]))
            if first == 0:
                band = results[0].new_zeros(*results[0].shape[:2], height, (columns.starts[-1] + columns.tile) * scale)
                if begun is not None:
                    band[..., : begun.shape[-2], :] = begun
            for j, (left, restored) in enumerate(zip(lefts, results, strict=True), start=first):
                weight = (down[i][:, None] * across[j]).to(restored)
                band[..., left * scale : left * scale + width] += restored * weight
        end = rows.starts[i + 1] if i + 1 < len(rows.starts) else top + rows.tile
        yield Restored(top * scale, 0, band[..., : (end - top) * scale, :])
        begun = band[..., (end - top) * scale :, :]
