"""PSNR and SSIM of batches of tensors, on the device they are on; the same numbers as those of single images."""

import torch
from torch import Tensor
from torch.nn import functional

from panet_plugin.metrics.functional import inside, similarity, ssim_window
from panet_plugin.pixels import LUMA_OFFSET, LUMA_WEIGHTS, PEAK


def batched_rgb_to_y(images: Tensor) -> Tensor:
    """Return the unrounded luma ``(N, 1, H, W)`` of RGB images ``(N, 3, H, W)`` on the 0..255 scale, in float64.

    Raises:
        ValueError: If the images have not three channels.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"expected RGB images (N, 3, H, W), got shape {tuple(images.shape)}")
    weights = torch.as_tensor(LUMA_WEIGHTS, device=images.device).view(1, 3, 1, 1)
    return (images.double() * weights).sum(1, keepdim=True) + LUMA_OFFSET


def batched_psnr(restored: Tensor, reference: Tensor, border: int = 0) -> Tensor:
    """Return the PSNR of every image of a batch; see :func:`panet_plugin.metrics.psnr`.

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
    """Return the SSIM of every image of a batch; see :func:`panet_plugin.metrics.ssim`.

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
    restored, reference = _inside(restored, reference, border)
    kernel = torch.as_tensor(ssim_window(window, restored.shape[-2:]), device=restored.device)
    channels = restored.shape[1]

    def blur(images: Tensor) -> Tensor:
        rows = functional.conv2d(images, kernel.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
        return functional.conv2d(rows, kernel.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)

    return similarity(restored, reference, blur).mean((1, 2, 3))


def _inside(restored: Tensor, reference: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if restored.shape != reference.shape or restored.ndim != 4:
        shapes = f"{tuple(restored.shape)} and {tuple(reference.shape)}"
        raise ValueError(f"expected two batches (N, C, H, W) of one size, got shapes {shapes}")
    part = (..., *inside(border, *restored.shape[-2:]))
    return restored[part].double(), reference[part].double()
