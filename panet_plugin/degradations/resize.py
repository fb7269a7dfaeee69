"""MATLAB's ``imresize``, with which the low-resolution images of published super-resolution tables were made."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

DTYPES = ("uint8", "uint16", "float32", "float64")


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


# method: (kernel, width of its support in pixels)
KERNELS = {"bicubic": (_cubic, 4.0), "bilinear": (_triangle, 2.0)}


@lru_cache(maxsize=64)
def _interpolation_matrix(length: int, new_length: int, scale: float, method: str, antialias: bool) -> csr_array:
    """Return the matrix (new_length, length) that resizes along one dimension, with separate entries for reflections.

    Entries stay in the order of the taps and are not merged, so that a product accumulates in MATLAB's order: for
    scales whose weights are not binary fractions, the last bit decides how ties are rounded.
    """
    kernel, width = KERNELS[method]
    # Antialiasing: the kernel is widened by 1 / scale when downscaling.
    stretch = min(scale, 1.0) if antialias else 1.0
    width /= stretch
    # Pixel centers, counted from 1: output 0.5 is input 0.5.
    center = np.arange(1, new_length + 1) / scale + 0.5 * (1 - 1 / scale)
    taps = math.ceil(width) + 2
    position = np.floor(center - width / 2)[:, None] + np.arange(taps)
    weights = stretch * kernel(stretch * (center[:, None] - position))
    weights /= weights.sum(axis=1, keepdims=True)

    mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    columns = mirror[(position.astype(np.int64) - 1) % (2 * length)]
    used = weights != 0
    row_starts = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return csr_array((weights[used], columns[used], row_starts), shape=(new_length, length))


def _resize_rows(image: np.ndarray, matrix: csr_array) -> np.ndarray:
    """Resize (H, ...) along its first dimension; an integer image is rounded back to its type, halves upward."""
    flat = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    resized = matrix @ flat.astype(np.float64, copy=False)
    if np.issubdtype(image.dtype, np.integer):
        resized += 0.5
        np.clip(resized, 0, np.iinfo(image.dtype).max, out=resized)
        # Truncation equals floor, since no value is negative here.
        resized = resized.astype(image.dtype)
    return resized.reshape(-1, *image.shape[1:])


def imresize(
    image: np.ndarray,
    scale: float | None = None,
    output_shape: tuple[int, int] | None = None,
    method: str = "bicubic",
    antialias: bool = True,
) -> np.ndarray:
    """Resize an image exactly as MATLAB's ``imresize`` does.

    Integer images are rounded between the two passes, as in MATLAB; floating-point images are computed in float64 and
    not clipped. The dimension with the smaller scale is resized first, or rows if both are equal.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16, float32 or float64, any range.
        scale: Positive factor of both sides; the result has ``ceil(side * scale)`` pixels. Either this or
            ``output_shape``.
        output_shape: (H, W) of the result in pixels; the factor of each side is then the ratio of the sizes.
        method: ``"bicubic"`` (Keys' kernel, a = -0.5) or ``"bilinear"``.
        antialias: Widen the kernel by ``1 / scale`` when shrinking.

    Returns:
        The resized image, of the same type and number of dimensions.

    Raises:
        TypeError: The image is not a NumPy array of one of these types.
        ValueError: The image is empty, not finite or of another shape; the scale is not finite and positive; neither
            or both of ``scale`` and ``output_shape`` are given; the method is unknown.
    """
    if not isinstance(image, np.ndarray) or image.dtype.name not in DTYPES:
        given = f"dtype {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"imresize: expected a NumPy array of {', '.join(DTYPES)}, got {given}")
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"imresize: expected a non-empty image (H, W) or (H, W, C), got shape {image.shape}")
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise ValueError("imresize: the image holds NaN or infinite values")
    if method not in KERNELS:
        raise ValueError(f"imresize: expected method {' or '.join(KERNELS)}, got {method!r}")

    sides = image.shape[:2]
    if scale is not None and output_shape is None:
        scale = float(scale)
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"imresize: expected a finite scale above 0, got {scale}")
        scales = [scale, scale]
        new_sides = [math.ceil(scale * side) for side in sides]
    elif output_shape is not None and scale is None:
        if len(output_shape) != 2 or any(side < 1 or side != int(side) for side in output_shape):
            raise ValueError(f"imresize: expected output_shape (H, W) of whole numbers above 0, got {output_shape}")
        new_sides = [int(side) for side in output_shape]
        scales = [new / old for new, old in zip(new_sides, sides, strict=True)]
    else:
        raise ValueError(f"imresize: expected either scale or output_shape, got {scale=}, {output_shape=}")

    dtype = image.dtype
    if dtype.kind == "f":
        image = image.astype(np.float64, copy=False)
    for axis in sorted((0, 1), key=scales.__getitem__):
        matrix = _interpolation_matrix(sides[axis], new_sides[axis], scales[axis], method, bool(antialias))
        image = np.swapaxes(_resize_rows(np.swapaxes(image, 0, axis), matrix), 0, axis)
    return np.ascontiguousarray(image, dtype=dtype)
