"""PANet: restoration at the size of the input."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from panet_plugin.archs.image_residual import image_residual_of
from panet_plugin.archs.prelu import PReLU
from panet_plugin.archs.residual import ResidualTrunk, attention_or_identity, conv3x3


class PANet(nn.Module):
    """Pyramid attention network for denoising, demosaicing and artifact reduction (paper, section 3.4).

    The defaults are the published network: 5.957 M parameters for RGB, 5.955 M for gray.

    Args:
        in_channels: Channels of input and output images: 3 for RGB, 1 for gray.
        mid_channels: Channels of the features.
        num_blocks: Number of residual blocks, half of them before the attention.
        res_scale: Factor in the residual blocks.
        attention: Arguments of :class:`PyramidAttention` that differ from its defaults; ``False`` leaves the attention
            out, as in the first stage of a training in two.
        image_residual: Image to which the output is added: ``True`` for the input, ``"mosaic"`` for the bilinear
            interpolation of a Bayer mosaic, ``False`` for none, as published.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: int = 3,
        mid_channels: int = 64,
        num_blocks: int = 80,
        res_scale: float = 1.0,
        attention: Mapping[str, Any] | Literal[False] | None = None,
        image_residual: bool | str = False,
    ) -> None:
        super().__init__()
        #: Arguments of the constructor, for checkpoints.
        self.arguments = {
            "in_channels": in_channels,
            "mid_channels": mid_channels,
            "num_blocks": num_blocks,
            "res_scale": res_scale,
            "attention": False if attention is False else dict(attention or {}),
            "image_residual": image_residual,
        }
        self.image_residual = image_residual_of(image_residual, in_channels)
        middle = attention_or_identity(mid_channels, attention)
        self.head = conv3x3(in_channels, mid_channels)
        self.body = ResidualTrunk(mid_channels, num_blocks, middle, PReLU(), res_scale)
        self.tail = conv3x3(mid_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Restore images.

        Args:
            x: ``(N, in_channels, H, W)`` in [0, 1].

        Returns:
            The same shape; not clamped.
        """
        restored = self.tail(self.body(self.head(x)))
        return restored if self.image_residual is None else restored + self.image_residual(x)
