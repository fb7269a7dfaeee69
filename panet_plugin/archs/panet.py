"""PANet: restoration at the size of the input."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from panet_plugin.archs.pyramid_attention import PyramidAttention
from panet_plugin.archs.residual import ResidualTrunk, conv3x3


class PANet(nn.Module):
    """Pyramid attention network for denoising, demosaicing and artifact reduction (paper, section 3.4).

    The defaults are the published network: 5.957 M parameters for RGB, 5.955 M for gray.

    Args:
        in_channels: Channels of input and output images: 3 for RGB, 1 for gray.
        mid_channels: Channels of the features.
        num_blocks: Number of residual blocks, half of them before the attention.
        res_scale: Factor inside the residual blocks.
        attention: Arguments of :class:`PyramidAttention` that differ from its defaults.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        mid_channels: int = 64,
        num_blocks: int = 80,
        res_scale: float = 1.0,
        attention: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        middle = PyramidAttention(mid_channels, **(attention or {}))
        self.head = conv3x3(in_channels, mid_channels)
        self.body = ResidualTrunk(mid_channels, num_blocks, middle, nn.PReLU(), res_scale)
        self.tail = conv3x3(mid_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Restore images.

        Args:
            x: ``(N, in_channels, H, W)`` in [0, 1].

        Returns:
            The same shape; not clamped.
        """
        return self.tail(self.body(self.head(x)))
