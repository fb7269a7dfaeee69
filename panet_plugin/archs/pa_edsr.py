"""PA-EDSR: super-resolution."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor, nn

from panet_plugin.archs.image_residual import image_residual_of
from panet_plugin.archs.residual import ResidualTrunk, attention_or_identity, conv3x3
from panet_plugin.archs.super_resolution import mean_color, upsampler


class PAEDSR(nn.Module):
    """EDSR with pyramid attention in the middle of its residual blocks (paper, section 4.5).

    The defaults are the published x2 network: 40.81 M parameters.

    Args:
        scale: Upscaling factor: 3 or a power of two.
        in_channels: Channels of input and output images.
        mid_channels: Channels of the features.
        num_blocks: Number of residual blocks, half of them before the attention.
        res_scale: Factor in the residual blocks, and of the input in the attention.
        mean: Color that is subtracted before and added after the network, one value in [0, 1] per channel; ``None`` is
            that of DIV2K for three channels and 0 otherwise.
        attention: Arguments of :class:`PyramidAttention` that differ from ``reduction=8, res_scale=res_scale``;
            ``False`` leaves the attention out, as in the first stage of a training in two.
        image_residual: Add the network's output to its input, interpolated bicubically; off as published.

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
        attention: Mapping[str, Any] | Literal[False] | None = None,
        image_residual: bool = False,
    ) -> None:
        super().__init__()
        #: Arguments of the constructor, for checkpoints; the mean is stored with the weights.
        self.arguments = {
            "scale": scale,
            "in_channels": in_channels,
            "mid_channels": mid_channels,
            "num_blocks": num_blocks,
            "res_scale": res_scale,
            "attention": False if attention is False else dict(attention or {}),
            "image_residual": image_residual,
        }
        middle = attention_or_identity(mid_channels, attention, reduction=8, res_scale=res_scale)
        self.image_residual = image_residual_of(image_residual, in_channels, scale)
        self.mean = mean_color(mean, in_channels)
        self.head = conv3x3(in_channels, mid_channels)
        self.body = ResidualTrunk(mid_channels, num_blocks, middle, nn.ReLU(), res_scale)
        self.upsample = upsampler(scale, mid_channels)
        self.tail = conv3x3(mid_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale images.

        Args:
            x: ``(N, in_channels, H, W)`` in [0, 1].

        Returns:
            ``(N, in_channels, H * scale, W * scale)``; not clamped.
        """
        features = self.body(self.head(x - self.mean))
        restored = self.tail(self.upsample(features))
        return restored + (self.mean if self.image_residual is None else self.image_residual(x))
