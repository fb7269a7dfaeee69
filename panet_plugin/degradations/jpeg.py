"""JPEG compression."""

import functools
from collections.abc import Sequence
from io import BytesIO
from numbers import Integral

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from panet_plugin.pixels import luma


def compress_jpeg(image: np.ndarray, quality: int, luma_only: bool = True) -> np.ndarray:
    """Compress an image with libjpeg's baseline encoder and decode it (paper, section 4.4).

    Args:
        image: 8-bit ``(H, W)``, ``(H, W, 1)`` or RGB ``(H, W, 3)``.
        quality: libjpeg's quality, 1 to 100.
        luma_only: Encode only the luma, as a gray file, as for the published figures. Otherwise RGB images are encoded
            in color, with chroma subsampled by 2.

    Returns:
        8-bit image: ``(H, W, 1)`` for an RGB image if ``luma_only``, otherwise the same shape.

    Raises:
        TypeError: If the image is not 8-bit.
        ValueError: If it has another shape, or the quality is out of range.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        given = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"expected an 8-bit image, got {given}")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (1,), (3,)) or image.size == 0:
        raise ValueError(f"expected (H, W), (H, W, 1) or RGB (H, W, 3), got shape {image.shape}")
    if not isinstance(quality, Integral) or isinstance(quality, bool) or not 1 <= quality <= 100:
        raise ValueError(f"quality must be a whole number from 1 to 100, got {quality!r}")
    color = image.shape[2:] == (3,) and not luma_only
    source = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if color else luma(image)
    _, file = cv2.imencode(".jpg", source, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB) if color else decoded.reshape(source.shape)


def closest_quality(table: Sequence[int]) -> tuple[int, bool]:
    """Estimate libjpeg's quality from a quantization table of luma.

    Args:
        table: The 64 values from left to right and top to bottom, as in Pillow, not in zigzag order.

    Returns:
        The quality, 1 to 100, and whether the table is exactly that of libjpeg. For other encoders, it is the quality
        with the smallest mean absolute difference of the logarithms.
    """
    # Unless restricted to baseline files, libjpeg also writes values above 255.
    ratios = np.log(np.clip(table, 1, 255) / _luma_tables())
    distances = np.abs(ratios).mean(axis=1)
    best = int(distances.argmin())
    return best + 1, not distances[best]


@functools.cache
def _luma_tables() -> np.ndarray:
    """Return the table of every quality, ``(100, 64)``, as read from files."""
    pixel = np.zeros((1, 1), np.uint8)
    files = [cv2.imencode(".jpg", pixel, [cv2.IMWRITE_JPEG_QUALITY, quality])[1] for quality in range(1, 101)]
    return np.array([JpegImageFile(BytesIO(file.tobytes())).quantization[0] for file in files])
