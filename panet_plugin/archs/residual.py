"""Residual blocks, and the trunk with attention in its middle that PANet and PA-EDSR share."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from panet_plugin.archs.pyramid_attention import PyramidAttention


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with an activation between them, scaled and added to the input.

    Args:
        channels: Channels of input and output.
        activation: The module between the convolutions.
        res_scale: Factor of the convolutions' result.
    """

    def __init__(self, channels: int, activation: nn.Module, res_scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.activation = activation
        self.conv2 = conv3x3(channels, channels)
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + res_scale * conv2(activation(conv1(x)))``; shape ``(N, C, H, W)``."""
        return x + self.res_scale * self.conv2(self.activation(self.conv1(x)))


class ResidualTrunk(nn.Module):
    """``num_blocks`` residual blocks with a module in their middle, a convolution, and a skip over all of it.

    Args:
        channels: Channels of input and output.
        num_blocks: Number of residual blocks; the first ``num_blocks // 2`` stand before ``middle``.
        middle: The module in the middle.
        activation: The activation of every block. It is one module: PANet's blocks share a single PReLU slope.
        res_scale: Factor inside the residual blocks.

    Raises:
        ValueError: If ``num_blocks`` is negative.
    """

    def __init__(
        self, channels: int, num_blocks: int, middle: nn.Module, activation: nn.Module, res_scale: float
    ) -> None:
        super().__init__()
        if num_blocks < 0:
            raise ValueError(f"num_blocks must not be negative, got {num_blocks}")
        blocks: list[nn.Module] = [ResidualBlock(channels, activation, res_scale) for _ in range(num_blocks)]
        blocks.insert(num_blocks // 2, middle)
        self.blocks = nn.Sequential(*blocks)
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + conv(blocks(x))``; shape ``(N, C, H, W)``."""
        return x + self.conv(self.blocks(x))


def attention_or_identity(
    channels: int, attention: Mapping[str, Any] | Literal[False] | None, **defaults: Any
) -> nn.Module:
    """Return the module in the middle of a trunk: pyramid attention, or the identity.

    Args:
        channels: Channels of the features.
        attention: Arguments of :class:`PyramidAttention` that differ from the defaults, or ``False`` for the identity.
        **defaults: Arguments that ``attention`` may override.

    Raises:
        ValueError: If an argument is outside its range.
    """
    if attention is False:
        return nn.Identity()
    return PyramidAttention(channels, **{**defaults, **(attention or {})})
