"""Shared parts of the super-resolution networks: subtraction of a mean color, and sub-pixel upscaling."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from panet_plugin.archs.residual import conv3x3

#: Mean color of DIV2K's training images, RGB in [0, 1], as in EDSR.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


def mean_color(mean: Sequence[float] | None, channels: int) -> nn.Parameter:
    """Return the mean color of images as a frozen parameter.

    Args:
        mean: One value in [0, 1] per channel; ``None`` is that of DIV2K for three channels and 0 otherwise.
        channels: Channels of the images.

    Returns:
        ``(1, channels, 1, 1)``.

    Raises:
        ValueError: If there is not one value per channel.
    """
    if mean is None:
        mean = DIV2K_MEAN if channels == 3 else (0.0,) * channels
    if len(mean) != channels:
        raise ValueError(f"mean must have one value per channel ({channels}), got {tuple(mean)}")
    # A frozen parameter instead of a buffer: distributed training would broadcast a buffer in every forward pass, but
    # BasicSR validates only in the first process.
    return nn.Parameter(torch.tensor(mean).view(1, -1, 1, 1), requires_grad=False)


def upsampler(scale: int, channels: int) -> nn.Sequential:
    """Return convolutions and pixel shuffles that upscale features.

    Args:
        scale: Upscaling factor: 3 or a power of two.
        channels: Channels of input and output.

    Raises:
        ValueError: If the scale is invalid.
    """
    if scale == 3:
        steps = [3]
    elif scale >= 1 and scale & (scale - 1) == 0:
        steps = [2] * int(math.log2(scale))
    else:
        raise ValueError(f"scale must be 3 or a power of two, got {scale}")
    layers: list[nn.Module] = []
    for step in steps:
        layers += [conv3x3(channels, channels * step**2), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)
