"""Bayer mosaics."""

import numpy as np

#: Channels (R, G, B are 0, 1, 2) of the top left 2x2 pixels, row by row.
PATTERNS = {name: tuple("RGB".index(color) for color in name) for name in ("GRBG", "RGGB", "BGGR", "GBRG")}


def mosaic_bayer(image: np.ndarray, pattern: str = "GRBG") -> np.ndarray:
    """Keep the one channel of every pixel that a Bayer sensor measures, and set the others to 0.

    Args:
        image: RGB ``(H, W, 3)`` of any type and range; odd sides end within a 2x2 cell.
        pattern: Colors of the top left 2x2 pixels, row by row: ``"GRBG"`` as published, ``"RGGB"``, ``"BGGR"`` or
            ``"GBRG"``.

    Returns:
        The same shape and type.

    Raises:
        ValueError: If the image is not RGB, or the pattern is unknown.
    """
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an RGB image (H, W, 3), got shape {np.shape(image)}")
    if pattern not in PATTERNS:
        raise ValueError(f"pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}")
    mosaic = np.zeros_like(image)
    for position, channel in enumerate(PATTERNS[pattern]):
        site = np.s_[position // 2 :: 2, position % 2 :: 2, channel]
        mosaic[site] = image[site]
    return mosaic
