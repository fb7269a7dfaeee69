"""Reading and writing image files; a bad file is always named."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from panet_plugin.data.pictures import UPRIGHT, decode_picture
from panet_plugin.files import write_bytes

# Low: sets are read far more often than they are stored, and decoding time hardly depends on it.
PNG_COMPRESSION = 1
# Formats that hold 16 bits per channel.
WITH_16_BIT = frozenset({".png", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"})


def read_image(path: str | os.PathLike, gray: bool | None = False) -> np.ndarray:
    """Read an image file as RGB; see :func:`decode_image`.

    Raises:
        BadImageError: The file is empty, truncated or not an image, or holds what cannot be read without loss.
        OSError: The file cannot be read.
    """
    return decode_image(Path(path).read_bytes(), path, gray)


def decode_image(content: bytes, name: str | os.PathLike, gray: bool | None = False) -> np.ndarray:
    """Decode an image as RGB.

    Palettes, CMYK and gray files become RGB, alpha is dropped, the EXIF orientation is applied, and files of more than
    8 bits become 16-bit; see :func:`~panet_plugin.data.pictures.decode_picture`.

    Args:
        content: An image file's bytes.
        name: What errors call it.
        gray: Return the ITU-R 601 luma in the full range instead; a gray file keeps its values. None: a gray file stays
            gray, others become RGB.

    Returns:
        (H, W, 3), or (H, W, 1) if gray, uint8 or uint16.

    Raises:
        BadImageError: It is empty, truncated or not an image, or holds what cannot be read without loss.
    """
    picture = decode_picture(content, name)
    pixels = np.ascontiguousarray(UPRIGHT[picture.orientation](picture.pixels))
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if gray is False else pixels[..., None]
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] if gray else pixels


def encode_image(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode (H, W), (H, W, 1) or RGB (H, W, 3), uint8 or uint16, in the format that a file suffix stands for.

    Raises:
        ValueError: The image is of another type or shape, or the format cannot hold it.
    """
    shape_is_known = image.ndim in (2, 3) and image.shape[2:] in ((), (1,), (3,)) and image.size > 0
    if image.dtype not in (np.uint8, np.uint16) or not shape_is_known:
        raise ValueError(f"expected uint8 or uint16, (H, W), (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}")
    if image.dtype == np.uint16 and suffix.lower() not in WITH_16_BIT:
        raise ValueError(f"cannot encode 16 bits per channel as {suffix!r}; expected {', '.join(sorted(WITH_16_BIT))}")
    if image.shape[2:] == (3,):
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION] if suffix.lower() == ".png" else []
    try:
        _, encoded = cv2.imencode(suffix, image, options)
    except cv2.error as error:
        raise ValueError(f"cannot encode {image.dtype} {image.shape} as {suffix!r}") from error
    return encoded.tobytes()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image file; under this name it is either whole or not there.

    Args:
        path: Where to; the suffix is the format. Missing folders are made.
        image: RGB (H, W, 3), or gray (H, W) or (H, W, 1), uint8 or uint16.

    Raises:
        ValueError: The image is of another type or shape, or the format cannot hold it.
        OSError: The file cannot be written.
    """
    try:
        content = encode_image(image, Path(path).suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_bytes(path, content)
