"""Pixel values: rounding to 8 bits, ranges of types, luma; and bands of images."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike, NDArray

PEAK = 255.0

#: Pixels of a band: copies of bands in other types are small for images of any size.
BAND = 2**16

#: Weights of R, G, B and offset of luma for 8-bit images: ITU-R BT.601, as in MATLAB's rgb2ycbcr.
LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
LUMA_OFFSET = 16.0


def bands(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of an image in bands of at most :data:`BAND` pixels, at least one row."""
    rows = max(1, BAND // width)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def quantize(image: NDArray, dtype: DTypeLike = np.uint8) -> NDArray:
    """Clip a [0, 1] image and round it to 8 or 16 bits, as when saving it."""
    return np.rint(np.clip(image, 0, 1) * float(np.iinfo(dtype).max)).astype(dtype)


def to_unit(image: NDArray) -> NDArray[np.float64]:
    """Return an image of unsigned integers, or of floats in [0, 1] already, as float64 in [0, 1].

    Raises:
        TypeError: If the image is of another type.
        ValueError: If it holds NaN or infinite values.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "uf":
        given = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"expected a NumPy image of unsigned integers or floats, got {given}")
    if image.dtype.kind == "u":
        return image / float(np.iinfo(image.dtype).max)
    if not np.isfinite(image).all():
        raise ValueError("the image holds NaN or infinite values")
    return image.astype(np.float64)


def rgb_to_y(image: NDArray) -> NDArray[np.float64]:
    """Return the unrounded luma, 16 to 235, of an ``(H, W, 3)`` RGB image on the 0..255 scale.

    Raises:
        ValueError: If the image does not have three channels.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB image (H, W, 3), got shape {image.shape}")
    return image.astype(np.float64) @ LUMA_WEIGHTS + LUMA_OFFSET


def luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the rounded luma of an 8-bit image; gray images are luma already.

    Args:
        image: ``(H, W)``, ``(H, W, 1)`` or RGB ``(H, W, 3)``.

    Returns:
        ``(H, W)`` for ``(H, W)``, otherwise ``(H, W, 1)``.

    Raises:
        TypeError: If the image is not 8-bit.
        ValueError: If it is of another shape.
    """
    if image.dtype != np.uint8:
        raise TypeError(f"expected an 8-bit image, got {image.dtype}")
    if image.ndim == 2 or image.shape[2:] == (1,):
        return image
    return np.rint(rgb_to_y(image)).astype(np.uint8)[..., None]
