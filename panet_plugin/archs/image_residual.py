"""The image that a network adds its output to, so that it has only the difference to learn."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def interpolate_mosaic(mosaic: Tensor) -> Tensor:
    """Interpolate a Bayer mosaic bilinearly, whatever its pattern.

    Two of three values of every pixel are zero, so the sums over a pixel's neighbors that the kernels take hold
    exactly the samples there are: no mask is needed.

    Args:
        mosaic: Sparse ``(N, 3, H, W)``, RGB, zero where there is no sample; at least 2 pixels a side.

    Returns:
        The same shape; samples keep their values.
    """
    sides = torch.tensor([0.5, 1.0, 0.5])
    sparse = sides[:, None] * sides
    green = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
    kernels = torch.stack([sparse, green, sparse])[:, None].to(mosaic)
    # A mirror without the border pixel continues the pattern.
    return F.conv2d(F.pad(mosaic, (1, 1, 1, 1), mode="reflect"), kernels, groups=3)


def image_residual_of(kind: bool | str, channels: int) -> Callable[[Tensor], Tensor] | None:
    """Return what makes the image to add from a network's input; None if nothing is added.

    Args:
        kind: ``False`` adds nothing, ``True`` the input, ``"mosaic"`` the bilinear interpolation of a Bayer mosaic.
        channels: Channels of the images.

    Raises:
        ValueError: If ``kind`` is something else, or a mosaic has not three channels.
    """
    if kind == "mosaic" and channels != 3:
        raise ValueError(f"image_residual='mosaic' is for images of 3 channels, got {channels}")
    kinds = {False: None, True: _same, "mosaic": interpolate_mosaic}
    if kind not in kinds:
        raise ValueError(f"image_residual must be True, False or 'mosaic', got {kind!r}")
    return kinds[kind]


def upscaled(scale: int) -> Callable[[Tensor], Tensor]:
    """Return bicubic interpolation by a factor."""
    return partial(F.interpolate, scale_factor=scale, mode="bicubic", align_corners=False)


def _same(x: Tensor) -> Tensor:
    return x
