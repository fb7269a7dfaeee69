"""Additive Gaussian noise."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from panet_plugin.pixels import PEAK, quantize, to_unit

MODES = ("quantized", "float")


def add_gaussian_noise(
    image: np.ndarray,
    sigma: float | tuple[float, float],
    seed: int | np.random.Generator | None = None,
    mode: str = "quantized",
) -> np.ndarray:
    """Add white Gaussian noise, independent in every pixel and channel (paper, section 4.2).

    Args:
        image: Any shape; unsigned integers with their full range, or floats in [0, 1].
        sigma: Standard deviation on the 0..255 scale, whatever the type of the image. A pair (low, high) is a range
            from which one value is drawn uniformly, for training without a known level.
        seed: Seed or generator of the noise; ``None`` draws new noise each time.
        mode: ``"quantized"`` clips and rounds to 8 bit, as noisy benchmark images are stored; ``"float"`` returns
            the sum as it is.

    Returns:
        The same shape: uint8 if quantized, otherwise floats on the [0, 1] scale that may leave this range, float32 for
        a float32 image and float64 for others.

    Raises:
        TypeError: If the image is not an array of such a type.
        ValueError: If sigma is invalid, the mode is unknown, or the image is not finite.
    """
    low, high = _range(sigma)
    if mode not in MODES:
        raise ValueError(f"mode must be {' or '.join(map(repr, MODES))}, got {mode!r}")
    clean = to_unit(image)
    rng = np.random.default_rng(seed)
    level = low if low == high else rng.uniform(low, high)
    noisy = clean + level / PEAK * rng.standard_normal(clean.shape)
    if mode == "quantized":
        return quantize(noisy)
    return noisy.astype(np.float32) if image.dtype == np.float32 else noisy


def _range(sigma: float | tuple[float, float]) -> tuple[float, float]:
    bounds: Any = (sigma, sigma) if isinstance(sigma, Real) else sigma
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low <= high < math.inf:
        raise ValueError(f"sigma must be a finite number of at least 0, or a range (low, high) of them, got {sigma!r}")
    return low, high
