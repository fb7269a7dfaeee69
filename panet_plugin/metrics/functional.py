"""PSNR and SSIM of images on the 0..255 scale, in float64."""

import cv2
import numpy as np
from numpy.typing import NDArray

PEAK = 255.0

#: Weights of R, G, B and the offset of luma for 8-bit images: ITU-R BT.601, as MATLAB's rgb2ycbcr.
_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
_LUMA_OFFSET = 16.0


def quantize(image: NDArray) -> NDArray[np.uint8]:
    """Clip a [0, 1] image to its range and round it to 8 bit, as it would be saved before it is scored."""
    return np.rint(np.clip(image, 0, 1) * PEAK).astype(np.uint8)


def rgb_to_y(image: NDArray) -> NDArray[np.float64]:
    """Return the unrounded luma, 16 to 235, of an ``(H, W, 3)`` RGB image on the 0..255 scale.

    Raises:
        ValueError: If the image has not three channels.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB image (H, W, 3), got shape {image.shape}")
    return image.astype(np.float64) @ _LUMA + _LUMA_OFFSET


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
    kernel = _window(window)
    restored, reference = _inside(restored, reference, border)
    if min(restored.shape[:2]) < len(kernel):
        raise ValueError(f"SSIM needs {len(kernel)} pixels a side inside the border, got {restored.shape[:2]}")
    before = (len(kernel) - 1) // 2
    rows = slice(before, before + restored.shape[0] - len(kernel) + 1)
    columns = slice(before, before + restored.shape[1] - len(kernel) + 1)

    def blur(image: NDArray) -> NDArray:
        return cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, anchor=(before, before))[rows, columns]

    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mean_x, mean_y = blur(restored), blur(reference)
    var_x = blur(restored**2) - mean_x**2
    var_y = blur(reference**2) - mean_y**2
    covariance = blur(restored * reference) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return float(similarity.mean())


def _window(name: str) -> NDArray[np.float64]:
    if name == "gaussian":
        return cv2.getGaussianKernel(11, 1.5).ravel()
    if name == "uniform8":
        return np.full(8, 1 / 8)
    raise ValueError(f"window must be 'gaussian' or 'uniform8', got {name!r}")


def _inside(restored: NDArray, reference: NDArray, border: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if restored.shape != reference.shape or restored.ndim not in (2, 3):
        raise ValueError(f"expected two images of one size, got shapes {restored.shape} and {reference.shape}")
    height, width = restored.shape[:2]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of a {height}x{width} image")
    inside = np.s_[border : height - border, border : width - border]
    return restored[inside].astype(np.float64), reference[inside].astype(np.float64)
