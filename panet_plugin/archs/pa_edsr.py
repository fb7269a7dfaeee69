"""PA-EDSR: super-resolution."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs.pyramid_attention import PyramidAttention
from panet_plugin.archs.residual import ResidualTrunk, conv3x3

#: Mean colour of DIV2K's training images, RGB in [0, 1], as in EDSR.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class PAEDSR(nn.Module):
    """EDSR with pyramid attention in the middle of its residual blocks (paper, section 4.5).

    The defaults are the published x2 network: 40.81 M parameters.

    Args:
        scale: Upscaling factor: 3 or a power of two.
        in_channels: Channels of input and output images.
        mid_channels: Channels of the features.
        num_blocks: Number of residual blocks, half of them before the attention.
        res_scale: Factor inside the residual blocks, and of the input in the attention.
        mean: Colour that is subtracted before and added after the network, one value in [0, 1] per channel;
            ``None`` is that of DIV2K for three channels and 0 otherwise.
        attention: Arguments of :class:`PyramidAttention` that differ from ``reduction=8, res_scale=res_scale``.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        scale: int = 2,
        in_channels: int = 3,
        mid_channels: int = 256,
        num_blocks: int = 32,
        res_scale: float = 0.1,
        mean: Sequence[float] | None = None,
        attention: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if mean is None:
            mean = DIV2K_MEAN if in_channels == 3 else (0.0,) * in_channels
        if len(mean) != in_channels:
            raise ValueError(f"mean must have one value per channel ({in_channels}), got {tuple(mean)}")
        middle = PyramidAttention(mid_channels, **{"reduction": 8, "res_scale": res_scale, **(attention or {})})
        # A frozen parameter and no buffer: distributed training would broadcast a buffer in every forward pass, and
        # BasicSR validates in the first process alone.
        self.mean = nn.Parameter(torch.tensor(mean).view(1, -1, 1, 1), requires_grad=False)
        self.head = conv3x3(in_channels, mid_channels)
        self.body = ResidualTrunk(mid_channels, num_blocks, middle, nn.ReLU(), res_scale)
        self.upsample = _upsampler(scale, mid_channels)
        self.tail = conv3x3(mid_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images.

        Args:
            x: ``(N, in_channels, H, W)`` in [0, 1].

        Returns:
            ``(N, in_channels, H * scale, W * scale)``; not clamped.
        """
        features = self.body(self.head(x - self.mean))
        return self.tail(self.upsample(features)) + self.mean


def _upsampler(scale: int, channels: int) -> nn.Sequential:
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
