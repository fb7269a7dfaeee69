"""Pictures of any kind of colour for networks of RGB, gray or mosaics, and back."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panet_plugin.degradations import imresize, mosaic_bayer
from panet_plugin.degradations.mosaic import PATTERNS
from panet_plugin.tasks import Demosaicing, Task

#: Luma of R, G, B in the full range (ITU-R BT.601), as JPEG files have it.
BT601 = np.array([0.299, 0.587, 0.114], np.float32)


class Adapted(NamedTuple):
    """A picture as the network takes it.

    Attributes:
        image: ``(C, H, W)``, float32 in [0, 1].
        back: Turns a restored ``(C, H, W)`` into ``(H, W)`` or ``(H, W, 3)``.
        note: What the user should know; empty if there is nothing.
    """

    image: NDArray[np.float32]
    back: Callable[[NDArray], NDArray]
    note: str = ""


def adapt(pixels: NDArray, channels: int, scale: int = 1, task: Task | None = None) -> Adapted:
    """Fit a picture to a network's channels.

    A gray network restores the luma of a colour picture, and its chroma stays (bicubically enlarged for
    super-resolution). An RGB network is given a gray picture in all three channels, and the luma of its result is gray
    again. A network for demosaicing is given a sparse picture, as it is or made from a mosaic of one channel.

    Args:
        pixels: ``(H, W)`` gray or ``(H, W, 3)`` RGB, uint8 or uint16.
        channels: Of the network: 3 or 1.
        scale: Of the network.
        task: Of the network, if known.

    Raises:
        ValueError: If a picture is no mosaic but should be; if a gray picture may be one, since the task is unknown; if
            the network has other channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"a network of {channels} channels restores neither gray nor RGB pictures")
    if isinstance(task, Demosaicing):
        return Adapted(_planes(_unit(_sparse(pixels, task.pattern))), _pixels)
    unit = _unit(pixels)
    if pixels.ndim == 2 and channels == 3:
        if task is None and scale == 1:
            raise ValueError(
                "a gray picture for an RGB network: if it is a mosaic, say --task demosaicing, else its task"
            )
        return Adapted(_planes(np.repeat(unit[..., None], 3, axis=2)), lambda restored: _pixels(restored) @ BT601)
    if pixels.ndim == 3 and channels == 1:
        luma = unit @ BT601
        chroma = unit - luma[..., None]

        def colour(restored: NDArray) -> NDArray:
            return (chroma if scale == 1 else imresize(chroma, scale)) + restored[0][..., None]

        note = "a gray network restores the luma (BT.601) of a colour picture; its chroma is kept"
        return Adapted(luma[None], colour, note)
    return Adapted(_planes(unit), _pixels)


def _sparse(pixels: NDArray, pattern: str) -> NDArray:
    """Return the sparse RGB mosaic that a picture is, or that the one channel of a sensor stands for.

    Raises:
        ValueError: If a pixel has values in channels that its sensor does not see.
    """
    if pixels.ndim == 2 or (pixels == pixels[..., :1]).all():
        return mosaic_bayer(np.repeat(np.atleast_3d(pixels)[..., :1], 3, axis=2), pattern)
    if (pixels == mosaic_bayer(pixels, pattern)).all():
        return pixels
    fitting = [other for other in PATTERNS if (pixels == mosaic_bayer(pixels, other)).all()]
    advice = f"; it is one of {fitting[0]} (--pattern {fitting[0]})" if fitting else ""
    raise ValueError(
        f"not a {pattern} mosaic: expected one channel, or RGB with zeros in the two channels that a pixel lacks"
        f"{advice}"
    )


def _unit(pixels: NDArray) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _planes(image: NDArray) -> NDArray:
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(image), -1, 0))


def _pixels(image: NDArray) -> NDArray:
    return image[0] if len(image) == 1 else np.moveaxis(image, 0, -1)
