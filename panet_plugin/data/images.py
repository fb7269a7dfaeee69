"""Reading and writing image files as arrays; errors name the file."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np

from panet_plugin.data.image_reader import UPRIGHT, StoredImage, decode_stored
from panet_plugin.data.image_writer import WITH_16_BIT, check_format, encode_stored
from panet_plugin.files import write_bytes

# Sets are read far more often than they are stored, and decoding time hardly depends on the compression.
PNG_COMPRESSION = 1


def read_image(path: str | os.PathLike, gray: bool | None = False) -> np.ndarray:
    """Read an image file as RGB; see :func:`decode_image`.

    Raises:
        BadImageError: The file is empty, truncated or not an image, or cannot be read without loss.
        OSError: The file cannot be read.
    """
    return decode_image(Path(path).read_bytes(), path, gray)


def decode_image(content: bytes, name: str | os.PathLike, gray: bool | None = False) -> np.ndarray:
    """Decode an image as RGB.

    Palettes, CMYK and gray files become RGB, alpha is dropped, the EXIF orientation is applied, and files of more than
    8 bits become 16-bit; see :func:`~panet_plugin.data.image_reader.decode_stored`.

    Args:
        content: An image file's bytes.
        name: Name for error messages.
        gray: Return the ITU-R 601 luma in the full range instead; a gray file keeps its values. None: gray files stay
            gray, others become RGB.

    Returns:
        (H, W, 3), or (H, W, 1) if gray, uint8 or uint16.

    Raises:
        BadImageError: It is empty, truncated or not an image, or cannot be read without loss.
    """
    stored = decode_stored(content, name)
    pixels = np.ascontiguousarray(UPRIGHT[stored.orientation](stored.pixels))
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB) if gray is False else pixels[..., None]
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] if gray else pixels


def encode_image(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode (H, W), (H, W, 1) or RGB (H, W, 3), uint8 or uint16, in the format of a file suffix.

    Raises:
        ValueError: The image has another type or shape, or the format cannot hold it.
    """
    shape_is_known = image.ndim in (2, 3) and image.shape[2:] in ((), (1,), (3,)) and image.size > 0
    if image.dtype not in (np.uint8, np.uint16) or not shape_is_known:
        raise ValueError(f"expected uint8 or uint16, (H, W), (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}")
    kind = check_format(suffix, *image.shape[:2])
    if image.dtype == np.uint16 and kind not in WITH_16_BIT:
        raise ValueError(f"cannot encode 16 bits per channel as {suffix!r}; expected {' or '.join(WITH_16_BIT)}")
    if kind == "PNG":
        stored = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2:] == (3,) else image
        return cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])[1].tobytes()
    encode_stored(StoredImage(image[..., 0] if image.shape[2:] == (1,) else image), suffix, stream := BytesIO())
    return stream.getvalue()


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Write an image file atomically.

    Args:
        path: Destination; the suffix determines the format. Missing folders are created.
        image: RGB (H, W, 3), or gray (H, W) or (H, W, 1), uint8 or uint16.

    Raises:
        ValueError: The image has another type or shape, or the format cannot hold it.
        OSError: The file cannot be written.
    """
    try:
        content = encode_image(image, Path(path).suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    write_bytes(path, content)
