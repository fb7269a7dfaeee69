"""The image to which a network adds its output, so that it learns only the difference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Kinds of image residual by their numbers in checkpoints.
KINDS: dict[int, bool | str] = {1: True, 2: "mosaic"}
_NUMBERS = {kind: number for number, kind in KINDS.items()}


def interpolate_mosaic(mosaic: Tensor) -> Tensor:
    """Interpolate a Bayer mosaic with any pattern bilinearly.

    Two of three values of every pixel are zero, so that sums over a pixel's neighbors contain exactly the existing
    samples: no mask is needed.

    Args:
        mosaic: Sparse ``(N, 3, H, W)``, RGB, zero where there is no sample; at least 2 pixels per side.

    Returns:
        The same shape; samples keep their values.
    """
    sides = torch.tensor([0.5, 1.0, 0.5])
    sparse = sides[:, None] * sides
    green = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
    kernels = torch.stack([sparse, green, sparse])[:, None].to(mosaic)
    # Reflection without the border pixel continues the pattern.
    return F.conv2d(F.pad(mosaic, (1, 1, 1, 1), mode="reflect"), kernels, groups=3)


class ImageResidual(nn.Module):
    """Computes the image to add from a network's input.

    Its kind is stored with the weights: a checkpoint without it would look like that of a network that adds nothing.

    Args:
        kind: ``True`` is the input, interpolated bicubically if ``scale`` is not 1, ``"mosaic"`` the bilinear
            interpolation of a Bayer mosaic.
        scale: Upscaling factor of the network.
    """

    def __init__(self, kind: bool | str, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        self.mosaic = kind == "mosaic"
        self.register_buffer("kind", torch.tensor(_NUMBERS[kind], dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Return the image to add; shape ``(N, C, H * scale, W * scale)``."""
        if self.mosaic:
            return interpolate_mosaic(x)
        if self.scale == 1:
            return x
        return F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)


def image_residual_of(kind: bool | str, channels: int, scale: int = 1) -> ImageResidual | None:
    """Return the module that computes the image to add; None if nothing is added.

    Args:
        kind: ``False`` adds nothing; see :class:`ImageResidual` for ``True`` and ``"mosaic"``.
        channels: Channels of the images.
        scale: Upscaling factor of the network; a mosaic has 1.

    Raises:
        ValueError: If ``kind`` is something else, or does not fit the channels or the scale.
    """
    if kind is False:
        return None
    if kind is not True and kind != "mosaic":
        raise ValueError(f"image_residual must be True, False or 'mosaic', got {kind!r}")
    if kind == "mosaic" and (channels != 3 or scale != 1):
        raise ValueError(f"image_residual='mosaic' requires 3 channels and scale 1, got {channels} and {scale}")
    return ImageResidual(kind, scale)
