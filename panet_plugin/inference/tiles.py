"""Overlapping tiles of equal size, blended without visible seams."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from panet_plugin.inference.parts import Read, Restored


class Axis(NamedTuple):
    """Tiles along one side of an image.

    Attributes:
        starts: First pixel of every tile, ascending.
        tile: Side of a tile in pixels.
        overlap: See :func:`cover`.
    """

    starts: tuple[int, ...]
    tile: int
    overlap: int

    def weights(self, scale: int = 1) -> Tensor:
        """Return the weights of every tile's pixels, ``(tiles, tile * scale)``, which sum to 1 at every image pixel.

        Two neighboring tiles are blended over ``overlap`` pixels around the center of their common area. Pixels near an
        inner border, whose surroundings the network does not see, have weight zero.
        """
        starts = np.array(self.starts)
        meeting = (starts[1:] + starts[:-1] + self.tile) / 2
        centers = (np.arange(self.tile * scale) + 0.5) / scale + starts[:, None]
        # Tile i is used from its boundary with the previous tile to that with the next.
        begun = np.ones_like(centers)
        ended = np.zeros_like(centers)
        begun[1:] = self._fade(centers[1:] - meeting[:, None])
        ended[:-1] = self._fade(centers[:-1] - meeting[:, None])
        return torch.from_numpy((begun - ended).astype(np.float32))

    def _fade(self, distance: np.ndarray) -> np.ndarray:
        """Return a ramp from 0 to 1 over ``overlap`` pixels; a step if that is 0."""
        return np.clip(distance / max(self.overlap, 1e-9) + 0.5, 0, 1)


def cover(length: int, tile: int, overlap: int) -> Axis:
    """Distribute tiles evenly along a side.

    Args:
        length: Side of the image in pixels, at least 1.
        tile: Side of a tile; if the image is not longer, it is a single tile.
        overlap: Every result pixel comes from tiles that extend at least half of this beyond it, except at the borders
            of the image; neighboring tiles share at least twice this many pixels. A network with a receptive field not
            wider than this gives the same result as on the whole image.

    Raises:
        ValueError: If the overlap is negative, or a tile is not longer than twice the overlap.
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
    """Restore images tile by tile; the parts have the full width.

    Args:
        run: Restores ``(N, C, h, w)``.
        read: Reads the images.
        scale: Factor from the sides of a tile to those of what ``run`` returns.
        rows: Tiles along the height.
        columns: Tiles along the width.
        batch: Maximum number of tiles of a row per batch.
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
