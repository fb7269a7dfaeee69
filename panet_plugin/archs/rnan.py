"""RNAN: residual non-local attention network, a baseline of PANet's paper."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from panet_plugin.archs.residual import ResidualBlock, conv3x3
from panet_plugin.archs.super_resolution import mean_color, upsampler
from panet_plugin.ops import non_local_attention


class RNAN(nn.Module):
    """Residual non-local attention network (Zhang et al., ICLR 2019, arXiv 1903.10082, section 3).

    The defaults are the published network for color denoising and demosaicing; use ``in_channels=1`` for gray denoising
    and artifact reduction, and ``scale`` for super-resolution. With ``scale=1``, the output is added to the image;
    otherwise, a mean color is subtracted and the first features are added to the last ones.

    Args:
        scale: Upscaling factor: 1, 3 or a power of two.
        in_channels: Channels of input and output images: 3 for RGB, 1 for gray.
        mid_channels: Channels of the features, at least 2.
        num_groups: Number of residual attention groups, at least 2: the first and the last are non-local.
        mean: Color that is subtracted before and added after super-resolution, one value in [0, 1] per channel;
            ``None`` is that of DIV2K for three channels and 0 otherwise. Without upscaling there is none.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        scale: int = 1,
        in_channels: int = 3,
        mid_channels: int = 64,
        num_groups: int = 10,
        mean: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if mid_channels < 2:
            raise ValueError(f"mid_channels must be at least 2, got {mid_channels}")
        if num_groups < 2:
            raise ValueError(f"num_groups must be at least 2, got {num_groups}")
        if scale == 1 and mean is not None:
            raise ValueError(f"mean requires a scale above 1, got {tuple(mean)}")
        #: Arguments of the constructor, for checkpoints; the mean is stored with the weights.
        self.arguments = {
            "scale": scale,
            "in_channels": in_channels,
            "mid_channels": mid_channels,
            "num_groups": num_groups,
        }
        self.scale = scale
        if scale != 1:
            self.mean = mean_color(mean, in_channels)
        self.head = conv3x3(in_channels, mid_channels)
        self.low = ResidualAttentionGroup(mid_channels, non_local=True)
        self.groups = nn.Sequential(*(ResidualAttentionGroup(mid_channels) for _ in range(num_groups - 2)))
        self.conv = conv3x3(mid_channels, mid_channels)
        self.high = ResidualAttentionGroup(mid_channels, non_local=True)
        self.upsample = upsampler(scale, mid_channels)
        self.tail = conv3x3(mid_channels, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Restore or upscale images.

        Args:
            x: ``(N, in_channels, H, W)`` in [0, 1]; any size, although the published ones are even.

        Returns:
            ``(N, in_channels, H * scale, W * scale)``; not clamped.
        """
        if self.scale == 1:
            return x + self.tail(self._features(self.head(x)))
        first = self.head(x - self.mean)
        return self.tail(self.upsample(first + self._features(first))) + self.mean

    def _features(self, x: Tensor) -> Tensor:
        return self.high(self.conv(self.groups(self.low(x))))


class ResidualAttentionGroup(nn.Module):
    """A trunk of residual blocks weighted by a mask branch, and a convolution (section 3.2, figure 2).

    Args:
        channels: Channels of input and output.
        non_local: Whether the mask branch begins with a non-local block.
    """

    def __init__(self, channels: int, non_local: bool = False) -> None:
        super().__init__()
        self.before = _block(channels)
        self.trunk = nn.Sequential(_block(channels), _block(channels))
        self.mask = MaskBranch(channels, non_local)
        self.after = nn.Sequential(_block(channels), _block(channels))
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape ``(N, C, H, W)``."""
        x = self.before(x)
        return self.conv(self.after(x + self.trunk(x) * self.mask(x)))


class MaskBranch(nn.Module):
    """Weights in (0, 1) from features at full and at half size (section 3.3, figure 2).

    Args:
        channels: Channels of input and output.
        non_local: Whether it begins with a non-local block.
    """

    def __init__(self, channels: int, non_local: bool) -> None:
        super().__init__()
        self.non_local = NonLocalBlock(channels) if non_local else nn.Identity()
        self.before = _block(channels)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.middle = nn.Sequential(_block(channels), _block(channels))
        self.up = nn.ConvTranspose2d(channels, channels, 6, stride=2, padding=2)
        self.after = _block(channels)
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return weights of the same shape ``(N, C, H, W)``."""
        x = self.before(self.non_local(x))
        # Odd sides come back one pixel longer. Padding instead of a slice: compilers would make one program for odd
        # sides and one for even sides, and exporters only one of the two.
        large = F.pad(self.up(self.middle(self.down(x))), (0, -(x.shape[-1] % 2), 0, -(x.shape[-2] % 2)))
        return self.conv(self.after(x + large)).sigmoid()


class NonLocalBlock(nn.Module):
    """Non-local block (section 3.3, figure 3), normalized over the queries as the published weights require.

    Args:
        channels: Channels of input and output; half of them are matched.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels // 2, 1) for _ in range(3))
        self.output = nn.Conv2d(channels // 2, channels, 1)
        # The block starts as the identity.
        for weights in self.output.parameters():
            nn.init.zeros_(weights)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` plus the attention; shape ``(N, C, H, W)``."""
        return x + self.output(non_local_attention(self.query(x), self.key(x), self.value(x)))


def _block(channels: int) -> ResidualBlock:
    return ResidualBlock(channels, nn.ReLU())
