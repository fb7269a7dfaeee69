"""Shared parts of all implementations: pyramid, norms, divisor."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.bicubic import resize_bicubically
from panet_plugin.ops.exporting import current_loop, scaled_side

#: Lower bound of a key patch's norm, as in the original network (its buffer ``escape_NaN``).
MIN_PATCH_NORM = 1e-4

#: Scales of all levels: 1, 0.9, ..., 0.1 (paper, section 3.3).
DEFAULT_SCALES = tuple(1 - i / 10 for i in range(10))


def ladder(levels: int) -> tuple[float, ...]:
    """Return the first ``levels`` of the published scales 1, 0.9, 0.8, ...

    Args:
        levels: Number of pyramid levels, 1 to 10.

    Raises:
        ValueError: If ``levels`` is outside 1..10.
    """
    if not 1 <= levels <= len(DEFAULT_SCALES):
        raise ValueError(f"levels must be an integer from 1 to {len(DEFAULT_SCALES)}, got {levels!r}")
    return DEFAULT_SCALES[:levels]


def level_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return the size ``floor(side * scale)`` of one pyramid level, in pixels.

    Raises:
        ValueError: If a side would have no pixel left.
    """
    if current_loop() is not None:
        return scaled_side(height, scale), scaled_side(width, scale)
    size = math.floor(height * scale), math.floor(width * scale)
    if min(size) < 1:
        raise ValueError(
            f"the pyramid level with scale {scale:g} of a {height}x{width} feature map has no pixel; "
            "use fewer levels, larger scales or a larger input"
        )
    return size


def build_pyramid(features: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """Resize features bicubically to every level of the pyramid.

    Each level is sampled with the ratio of the sizes, as in PyTorch <= 1.5, with which the published weights were
    trained; ``F.interpolate(scale_factor=...)`` of later versions uses other positions.

    Args:
        features: ``(N, C, H, W)``.
        scales: Factors in (0, 1]; 1 returns ``features`` itself.

    Returns:
        One ``(N, C, floor(H * s), floor(W * s))`` tensor per scale.

    Raises:
        ValueError: If a level would be empty.
    """
    height, width = features.shape[-2:]
    return [
        features if scale == 1 else resize_bicubically(features, level_size(height, width, scale)) for scale in scales
    ]


def key_scale(key: Tensor, softmax_scale: float, ksize: int) -> Tensor:
    """Return ``softmax_scale / max(norm of the patch around each key, 1e-4)``.

    Args:
        key: ``(N, C, h, w)``.
        softmax_scale: Factor of the scores before the softmax.
        ksize: Side of the patch in pixels, odd.

    Returns:
        ``(N, 1, h, w)``. The gradient of an all-zero patch is zero, not NaN.
    """
    energy = key.square().sum(1, keepdim=True)
    # Not a convolution, whose products cuDNN may round. Clamp before the root: sqrt has an infinite slope at 0, and
    # 0 * inf would be NaN.
    total = F.avg_pool2d(energy, ksize, 1, ksize // 2) * ksize**2
    norm = total.clamp_min(MIN_PATCH_NORM**2).sqrt()
    return softmax_scale / norm


def overlap_divisor(ksize: int) -> int:
    """Return the divisor of the overlap-add: 1 for single pixels, 4 for 3x3 patches as in the original."""
    return ((ksize + 1) // 2) ** 2


def unfold_patches(features: Tensor, ksize: int) -> Tensor:
    """Return the zero-padded ``ksize`` x ``ksize`` patch around every pixel as ``(N, C * ksize**2, H * W)``."""
    return F.unfold(features, ksize, padding=ksize // 2)


def one_hot_of_maxima(scores: Tensor) -> Tensor:
    """Return 1 where a score equals the maximum over the last dimension (all on ties), otherwise 0."""
    return torch.eq(scores, scores.amax(-1, keepdim=True)).to(scores.dtype)
