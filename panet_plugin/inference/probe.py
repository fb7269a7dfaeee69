"""What a network takes and returns, found by running it on small images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Multiples that networks may need the sides of an image to be: strides, and windows of transformers.
MULTIPLES = (1, 2, 4, 7, 8, 12, 16, 24, 32, 48, 64)


class Traits(NamedTuple):
    """What was found.

    Attributes:
        scale: Factor from the sides of an image to those of the result.
        multiple: The sides must be multiples of it.
        least: The sides must be at least so long.
    """

    scale: int = 1
    multiple: int = 1
    least: int = 1

    def padded(self, side: int) -> int:
        """Return the next length of a side that the network takes."""
        return -(-max(side, self.least) // self.multiple) * self.multiple


def probe(run: Callable[[Tensor], Tensor], channels: int) -> Traits | None:
    """Find the traits of a network for images of so many channels.

    Args:
        run: Takes and returns ``(N, C, h, w)``.
        channels: C.

    Returns:
        None if it takes no such image, or does not return one with as many channels, scaled by a whole number.
    """
    for multiple in MULTIPLES:
        # Odd multiples, so that no other one passes by chance.
        side = next(side for side in range(multiple, 10_000, 2 * multiple) if side >= 24)
        if scale := _scale(run, channels, side, side + 2 * multiple):
            break
    else:
        return None
    for least in (multiple * factor for factor in range(1, side // multiple)):
        if _scale(run, channels, least, least) == scale:
            return Traits(scale, multiple, least)
    return Traits(scale, multiple, side)


def _scale(run: Callable[[Tensor], Tensor], channels: int, height: int, width: int) -> int | None:
    try:
        shape = run(torch.full((1, channels, height, width), 0.5)).shape
    except (torch.OutOfMemoryError, MemoryError):
        raise
    # A network may stumble over a size in any way.
    except Exception:
        return None
    scale = shape[-1] // width
    return scale if scale and tuple(shape) == (1, channels, height * scale, width * scale) else None


def pad(images: Tensor, traits: Traits) -> Tensor:
    """Mirror ``(N, C, H, W)`` at its right and lower border up to sizes that the network takes."""
    for axis in (-2, -1):
        side = images.shape[axis]
        if (wanted := traits.padded(side)) != side:
            # Back and forth, as often as it takes; a single pixel is repeated.
            period = max(2 * side - 2, 1)
            index = torch.arange(wanted, device=images.device) % period
            images = images.index_select(axis, torch.minimum(index, period - index if side > 1 else index))
    return images
