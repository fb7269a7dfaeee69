"""Finding the input sizes and the scale of a network by running it on small images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Multiples that networks may require of image sides: strides, and windows of transformers.
MULTIPLES = (1, 2, 4, 7, 8, 12, 16, 24, 32, 48, 64)


#: Numbers of channels that networks may have, in the order in which they are tried.
CHANNELS = (3, 1, 4)


class Traits(NamedTuple):
    """Properties of a network.

    Attributes:
        scale: Upscaling factor.
        multiple: The sides of an image must be multiples of this.
        least: Minimum length of a side.
    """

    scale: int = 1
    multiple: int = 1
    least: int = 1

    def padded(self, side: int) -> int:
        """Return the smallest valid length of a side that is not shorter."""
        return -(-max(side, self.least) // self.multiple) * self.multiple


def probe(run: Callable[[Tensor], Tensor], channels: int) -> Traits | None:
    """Find the traits of a network for images with this number of channels.

    Args:
        run: Takes and returns ``(N, C, h, w)``.
        channels: C.

    Returns:
        The traits; None if it does not accept such images, or does not return as many channels at an integer scale.
    """
    if (found := _first_fit(run, channels)) is None:
        return None
    for least in (found.multiple * factor for factor in range(1, found.least // found.multiple)):
        if _scale(run, channels, least, least) == found.scale:
            return found._replace(least=least)
    return found


def find_channels(run: Callable[[Tensor], Tensor]) -> int | None:
    """Return the number of channels of the images that a network accepts and returns; None if not 3, 1 or 4.

    Args:
        run: See :func:`probe`.
    """
    return next((channels for channels in CHANNELS if _first_fit(run, channels)), None)


def _first_fit(run: Callable[[Tensor], Tensor], channels: int) -> Traits | None:
    """Return the traits, with a side that fits instead of the least."""
    for multiple in MULTIPLES:
        # Odd multiples, so that a smaller multiple does not fit by chance.
        side = next(side for side in range(multiple, 10_000, 2 * multiple) if side >= 24)
        if scale := _scale(run, channels, side, side + 2 * multiple):
            return Traits(scale, multiple, side)
    return None


def _scale(run: Callable[[Tensor], Tensor], channels: int, height: int, width: int) -> int | None:
    try:
        shape = run(torch.full((1, channels, height, width), 0.5)).shape
    except (torch.OutOfMemoryError, MemoryError):
        raise
    # Networks raise various errors for unsupported sizes.
    except Exception:
        return None
    scale = shape[-1] // width
    return scale if scale and tuple(shape) == (1, channels, height * scale, width * scale) else None


def pad(images: Tensor, traits: Traits) -> Tensor:
    """Pad ``(N, C, H, W)`` by reflection at the right and the bottom to a size that the network accepts."""
    for axis in (-2, -1):
        side = images.shape[axis]
        if (wanted := traits.padded(side)) != side:
            # Reflect as often as necessary; a single pixel is repeated.
            period = max(2 * side - 2, 1)
            index = torch.arange(wanted, device=images.device) % period
            images = images.index_select(axis, torch.minimum(index, period - index if side > 1 else index))
    return images
