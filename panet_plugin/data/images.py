"""Reading and writing image files; a bad file is always named."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from panet_plugin.files import write_bytes

# Low: sets are read far more often than they are stored, and decoding time hardly depends on it.
PNG_COMPRESSION = 1
# Of files that are looked for among others.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


class BadImageError(ValueError):
    """An image file that is damaged, no image at all, or unfit for its purpose."""


def read_image(path: str | os.PathLike, gray: bool | None = False) -> np.ndarray:
    """Read an image file as RGB; see :func:`decode_image`.

    Raises:
        BadImageError: The file is empty, truncated or not an image, or has more than 16 bits per channel.
        OSError: The file cannot be read.
    """
    return decode_image(Path(path).read_bytes(), path, gray)


def decode_image(content: bytes, name: str | os.PathLike, gray: bool | None = False) -> np.ndarray:
    """Decode an image as RGB.

    Palettes, CMYK and gray files become RGB, alpha is dropped, the EXIF orientation is applied, and 16-bit files stay
    16-bit. The format is told by the content, not by the file's name.

    Args:
        content: An image file's bytes.
        name: What errors call it.
        gray: Return the ITU-R 601 luma in the full range instead; a gray file keeps its values. None: a gray file stays
            gray, others become RGB.

    Returns:
        (H, W, 3), or (H, W, 1) if gray, uint8 or uint16.

    Raises:
        BadImageError: It is empty, truncated or not an image, or has more than 16 bits per channel.
    """
    try:
        with Image.open(BytesIO(content)) as file:
            sixteen_bits = ";16" in str(file.tile)
            if gray is None:
                gray = file.mode in ("1", "L", "LA", "I;16", "I;16B", "I;16L")
            # Pillow refuses truncated data, which OpenCV would fill up in silence; but it has no 16-bit RGB.
            file.load()
            if sixteen_bits:
                encoded = np.frombuffer(content, np.uint8)
                image = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH), cv2.COLOR_BGR2RGB)
            elif file.mode in ("I", "F"):
                raise ValueError(f"32 bits per channel (mode {file.mode}), expected 8 or 16")
            else:
                image = np.array(ImageOps.exif_transpose(file).convert("RGB"))
    except UnidentifiedImageError as error:
        reason = "no known image format" if content else "the file is empty"
        raise BadImageError(f"{name}: not a readable image: {reason}") from error
    # Decoders fail in many ways on damaged bytes: OSError, SyntaxError, struct.error, decompression bombs ...
    except Exception as error:
        raise BadImageError(f"{name}: not a readable image: {error}") from error
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if gray else image


def encode_image(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode (H, W), (H, W, 1) or RGB (H, W, 3), uint8 or uint16, in the format that a file suffix stands for."""
    shape_is_known = image.ndim in (2, 3) and image.shape[2:] in ((), (1,), (3,)) and image.size > 0
    if image.dtype not in (np.uint8, np.uint16) or not shape_is_known:
        raise ValueError(f"expected uint8 or uint16, (H, W), (H, W, 1) or (H, W, 3), got {image.dtype} {image.shape}")
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
