"""Converting RGB images, gray images and mosaics to the channels of a network, and back."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panet_plugin.degradations import imresize
from panet_plugin.tasks import Task

#: Luma of R, G, B in the full range (ITU-R BT.601), as JPEG files have it.
BT601 = np.array([0.299, 0.587, 0.114], np.float32)

#: Distance in pixels up to which a bicubically enlarged pixel depends on others.
BICUBIC_REACH = 2


class Adapted(NamedTuple):
    """An image converted for a network.

    Attributes:
        read: Returns rows and columns, ``(C, h, w)``, float32 in [0, 1].
        back: Converts the restored rows and columns, ``(C, h * scale, w * scale)``, to ``(h * scale, w * scale)`` or
            ``(h * scale, w * scale, 3)``.
        gray: Whether the result is gray.
        note: A note for the user, or empty.
    """

    read: Callable[[slice, slice], NDArray[np.float32]]
    back: Callable[[NDArray, slice, slice], NDArray]
    gray: bool
    note: str = ""


def adapt(pixels: NDArray, channels: int, scale: int = 1, task: Task | None = None) -> Adapted:
    """Convert an image to a network's channels.

    A gray network restores the luma of a color image; the chroma is kept (bicubically enlarged for super-resolution).
    An RGB network receives a gray image in all three channels, and the luma of its output is the gray result. A
    demosaicing network receives a sparse mosaic, which may be made from a mosaic with one channel.

    Args:
        pixels: ``(H, W)`` gray or ``(H, W, 3)`` RGB, uint8 or uint16.
        channels: Channels of the network: 3 or 1.
        scale: Scale of the network.
        task: Task of the network, if known.

    Raises:
        ValueError: If an image should be a mosaic but is not; if a gray image might be one, since the task is unknown;
            or if the network has other channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"expected a network for gray or RGB images, got one with {channels} channels")
    if task is not None:
        pixels = task.as_degraded(pixels)

    def unit(rows: slice, columns: slice) -> NDArray[np.float32]:
        return pixels[rows, columns].astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)

    if pixels.ndim == 2 and channels == 3:
        if task is None and scale == 1:
            raise ValueError(
                "gray image for an RGB network: set --task demosaicing if it is a mosaic, otherwise the network's task"
            )
        return Adapted(
            lambda rows, columns: np.stack([unit(rows, columns)] * 3),
            lambda restored, rows, columns: np.moveaxis(restored, 0, -1) @ BT601,
            gray=True,
        )
    if pixels.ndim == 3 and channels == 1:

        def chroma(rows: slice, columns: slice) -> NDArray[np.float32]:
            color = unit(rows, columns)
            return color - (color @ BT601)[..., None]

        return Adapted(
            lambda rows, columns: (unit(rows, columns) @ BT601)[None],
            lambda restored, rows, columns: (
                restored[0][..., None] + enlarge(chroma, pixels.shape[:2], scale, rows, columns)
            ),
            gray=False,
            note="a gray network restores the luma (BT.601) of a color image; its chroma is kept",
        )
    return Adapted(
        lambda rows, columns: np.moveaxis(np.atleast_3d(unit(rows, columns)), -1, 0),
        lambda restored, rows, columns: restored[0] if len(restored) == 1 else np.moveaxis(restored, 0, -1),
        gray=pixels.ndim == 2,
    )


def enlarge(
    read: Callable[[slice, slice], NDArray], size: tuple[int, ...], scale: int, rows: slice, columns: slice
) -> NDArray:
    """Return rows and columns of the bicubically enlarged image.

    Args:
        read: Returns rows and columns of the image, ``(h, w)`` or ``(h, w, C)``.
        size: Height and width of the image.
        scale: Factor; 1 leaves it as it is.
        rows: Rows, counted in the image.
        columns: Columns, counted in the image.
    """
    if scale == 1:
        return read(rows, columns)
    wide = [
        slice(max(part.start - BICUBIC_REACH, 0), min(part.stop + BICUBIC_REACH, side))
        for part, side in zip((rows, columns), size, strict=True)
    ]
    enlarged = imresize(np.ascontiguousarray(read(*wide)), scale)
    down, across = (
        slice((part.start - around.start) * scale, (part.stop - around.start) * scale)
        for part, around in zip((rows, columns), wide, strict=True)
    )
    return enlarged[down, across]
