"""PSNR and SSIM on the 0..255 scale in float64, of batches of tensors on their device, and of images."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from panet_plugin.pixels import LUMA_OFFSET, LUMA_WEIGHTS, PEAK


def psnr(restored: NDArray, reference: NDArray, border: int = 0) -> float:
    """Return the peak signal-to-noise ratio over all channels.

    Args:
        restored: ``(H, W)`` or ``(H, W, C)`` on the 0..255 scale.
        reference: The same shape.
        border: Pixels left out along every edge.

    Returns:
        Decibels; infinite for equal images.

    Raises:
        ValueError: If the shapes differ, or nothing is left inside the border.
    """
    return of_images(batched_psnr, restored, reference, border)


def ssim(restored: NDArray, reference: NDArray, border: int = 0, window: str = "gaussian") -> float:
    """Return the mean structural similarity over the region where the whole window fits, averaged over channels.

    Args:
        restored: ``(H, W)`` or ``(H, W, C)`` on the 0..255 scale.
        reference: The same shape.
        border: Pixels left out along every edge.
        window: ``"gaussian"`` is 11x11 of sigma 1.5; ``"uniform8"`` is 8x8, as in the published tables of JPEG
            artifact reduction.

    Returns:
        At most 1, for equal images. K1 = 0.01, K2 = 0.03, L = 255.

    Raises:
        ValueError: If the shapes differ, the window is unknown or does not fit.
    """
    return of_images(batched_ssim, restored, reference, border, window)


def of_images(metric: Callable[..., Tensor], restored: NDArray, reference: NDArray, *settings: object) -> float:
    """Apply a metric of batches to two images ``(H, W)`` or ``(H, W, C)``.

    Raises:
        ValueError: If their shapes differ, and as the metric.
    """
    if restored.shape != reference.shape or restored.ndim not in (2, 3):
        raise ValueError(f"expected two images with the same shape, got {restored.shape} and {reference.shape}")
    batches = (
        torch.from_numpy(np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1)[None], np.float64))
        for image in (restored, reference)
    )
    return metric(*batches, *settings).item()


def batched_psnr(restored: Tensor, reference: Tensor, border: int = 0) -> Tensor:
    """Return the PSNR of every image of a batch; see :func:`psnr`.

    Args:
        restored: ``(N, C, H, W)`` on the 0..255 scale, of any type.
        reference: The same shape.
        border: Pixels left out along every edge.

    Returns:
        ``(N,)`` decibels, float64; infinite for equal images.

    Raises:
        ValueError: If the shapes differ, or nothing is left inside the border.
    """
    restored, reference = _inside(restored, reference, border)
    return 10 * torch.log10(PEAK**2 / ((restored - reference) ** 2).mean((1, 2, 3)))


def batched_ssim(restored: Tensor, reference: Tensor, border: int = 0, window: str = "gaussian") -> Tensor:
    """Return the SSIM of every image of a batch; see :func:`ssim`.

    Args:
        restored: ``(N, C, H, W)`` on the 0..255 scale, of any type.
        reference: The same shape.
        border: Pixels left out along every edge.
        window: ``"gaussian"`` or ``"uniform8"``.

    Returns:
        ``(N,)``, float64.

    Raises:
        ValueError: If the shapes differ, the window is unknown or does not fit.
    """
    x, y = _inside(restored, reference, border)
    kernel = _window(window, x.shape[-2:]).to(x.device)

    def blur(images: Tensor) -> Tensor:
        planes = images.flatten(0, 1)[:, None]
        rows = functional.conv2d(planes, kernel.view(1, 1, -1, 1))
        return functional.conv2d(rows, kernel.view(1, 1, 1, -1)).unflatten(0, images.shape[:2])[:, :, 0]

    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x**2) - mean_x**2 + blur(y**2) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return similarity.mean((1, 2, 3))


def batched_rgb_to_y(images: Tensor) -> Tensor:
    """Return the unrounded luma ``(N, 1, H, W)`` of RGB images ``(N, 3, H, W)`` on the 0..255 scale, in float64.

    Raises:
        ValueError: If the images do not have three channels.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected RGB images (N, 3, H, W), got shape {tuple(images.shape)}")
    weights = torch.as_tensor(LUMA_WEIGHTS, device=images.device).view(1, 3, 1, 1)
    return (images.double() * weights).sum(1, keepdim=True) + LUMA_OFFSET


def _window(name: str, size: Sequence[int]) -> Tensor:
    """Return the 1D kernel of a separable SSIM window; ValueError if it is unknown or larger than ``(H, W)`` pixels."""
    if name == "gaussian":
        kernel = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    elif name == "uniform8":
        kernel = torch.ones(8, dtype=torch.float64)
    else:
        raise ValueError(f"window must be 'gaussian' or 'uniform8', got {name!r}")
    if min(size) < len(kernel):
        raise ValueError(f"SSIM requires at least {len(kernel)} pixels per side inside the border, got {tuple(size)}")
    return kernel / kernel.sum()


def _inside(restored: Tensor, reference: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if restored.shape != reference.shape or restored.ndim != 4:
        shapes = f"{tuple(restored.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"expected two batches (N, C, H, W) with the same shape, got {shapes}")
    height, width = restored.shape[-2:]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of a {height}x{width} image")
    part = (..., slice(border, height - border), slice(border, width - border))
    return restored[part].double(), reference[part].double()
