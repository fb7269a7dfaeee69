"""PSNR and SSIM of images on the 0..255 scale, in float64."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from panet_plugin.pixels import PEAK

Images = TypeVar("Images", NDArray, Tensor)


def psnr(restored: NDArray, reference: NDArray, border: int = 0) -> float:
    """Return the peak signal-to-noise ratio, from the error over all channels.

    Args:
        restored: ``(H, W)`` or ``(H, W, C)`` on the 0..255 scale.
        reference: The same shape.
        border: Pixels left out along every edge.

    Returns:
        Decibels; infinite for equal images.

    Raises:
        ValueError: If the shapes differ, or nothing is left inside the border.
    """
    restored, reference = _inside(restored, reference, border)
    error = np.mean((restored - reference) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def ssim(restored: NDArray, reference: NDArray, border: int = 0, window: str = "gaussian") -> float:
    """Return the mean structural similarity over the region where the whole window fits, averaged over channels.

    Args:
        restored: ``(H, W)`` or ``(H, W, C)`` on the 0..255 scale.
        reference: The same shape.
        border: Pixels left out along every edge.
        window: ``"gaussian"`` is 11x11 of sigma 1.5; ``"uniform8"`` is 8x8, as in the published tables of JPEG
            artifact reduction.

    Returns:
        A number up to 1, which equal images have. K1 = 0.01, K2 = 0.03, L = 255.

    Raises:
        ValueError: If the shapes differ, the window is unknown or does not fit.
    """
    restored, reference = _inside(restored, reference, border)
    kernel = ssim_window(window, restored.shape[:2])
    before = (len(kernel) - 1) // 2
    rows = slice(before, before + restored.shape[0] - len(kernel) + 1)
    columns = slice(before, before + restored.shape[1] - len(kernel) + 1)

    def blur(image: NDArray) -> NDArray:
        return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, anchor=(before, before))[rows, columns]

    return float(similarity(restored, reference, blur).mean())


def similarity(restored: Images, reference: Images, blur: Callable[[Images], Images]) -> Images:
    """Return the structural similarity at every place of a window, for arrays and tensors alike."""
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = blur(restored), blur(reference)
    var_x = blur(restored**2) - mean_x**2
    var_y = blur(reference**2) - mean_y**2
    covariance = blur(restored * reference) - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


def ssim_window(name: str, size: Sequence[int]) -> NDArray[np.float64]:
    """Return one side of a separable window of SSIM; ValueError if it is unknown or does not fit ``(H, W)`` pixels."""
    if name == "gaussian":
        kernel = np.asarray(cv2.getGaussianKernel(11, 1.5), np.float64).ravel()
    elif name == "uniform8":
        kernel = np.full(8, 1 / 8)
    else:
        raise ValueError(f"window must be 'gaussian' or 'uniform8', got {name!r}")
    if min(size) < len(kernel):
        raise ValueError(f"SSIM needs {len(kernel)} pixels a side inside the border, got {tuple(size)}")
    return kernel


def inside(border: int, height: int, width: int) -> tuple[slice, slice]:
    """Return what a border leaves of an image's rows and columns; ValueError if that is nothing."""
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of a {height}x{width} image")
    return slice(border, height - border), slice(border, width - border)


def _inside(restored: NDArray, reference: NDArray, border: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if restored.shape != reference.shape or restored.ndim not in (2, 3):
        raise ValueError(f"expected two images of one size, got shapes {restored.shape} and {reference.shape}")
    part = inside(border, *restored.shape[:2])
    return restored[part].astype(np.float64), reference[part].astype(np.float64)
