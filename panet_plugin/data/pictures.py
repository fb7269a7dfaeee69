"""The one reader of picture files: pixels of 8 or 16 bit, alpha, and what else belongs to a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base

# Of files that are looked for among others.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

#: Formats of Pillow's that are read. Others run programs: what calls itself EPS would be given to Ghostscript.
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000")

#: What turns a stored picture upright, by EXIF's orientation.
UPRIGHT: dict[int, Callable[[NDArray], NDArray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}

#: TIFF's tags that say how pixels are stored: they are no news about a picture that is stored anew.
_STRUCTURE = frozenset({
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 284, 301, 317, 318, 319, 320, 321, 322),
    *(323, 324, 325, 330, 332, 338, 339, 340, 341, 342, 347, 512, 513, 514, 529, 530, 531, 532),
    *(700, 33723, 34377, 34675),
})  # fmt: skip

#: TIFF's tags for what the values stand for, and their values that matter here.
_BITS, _PHOTOMETRIC, _EXTRA = 258, 262, 338
_WHITE_IS_ZERO, _PREMULTIPLIED, _ALPHA = 0, 1, 2


class BadImageError(ValueError):
    """An image file that is damaged, no image at all, or unfit for its purpose."""


@dataclass(frozen=True)
class Picture:
    """A picture as its file stores it.

    Attributes:
        pixels: ``(H, W)`` gray or ``(H, W, 3)`` RGB, uint8 or uint16.
        alpha: ``(H, W)`` of the same type, or None.
        orientation: EXIF's, 1 to 8: how it is to be turned to be upright.
        exif: EXIF data without the orientation, as a JPEG file holds it; empty if there is none.
        icc: Color profile; empty if there is none.
        dpi: Horizontal and vertical resolution in pixels per inch; None if it is not known.
        notes: What was lost in reading it.
    """

    pixels: NDArray
    alpha: NDArray | None = None
    orientation: int = 1
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def list_pictures(folder: str | os.PathLike, recursive: bool = False) -> list[Path]:
    """Return the pictures in a folder by their suffixes, sorted; none if there is no such folder.

    What begins with a dot is left out, such as the ``._NAME`` that macOS leaves beside files on foreign disks.

    Args:
        folder: Where to look.
        recursive: Look into folders in it, too.
    """
    folder = Path(folder)
    found = folder.rglob("*") if recursive else folder.glob("*")
    return sorted(
        path
        for path in found
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return the stored height and width of a picture; errors as :func:`picture_head`."""
    with picture_head(path) as head:
        return head.height, head.width


@contextmanager
def picture_head(path: str | os.PathLike) -> Iterator[ImageFile.ImageFile]:
    """Open a picture of which only the head of the file is read.

    Raises:
        BadImageError: If the file is not an image.
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as stream:
        try:
            head = Image.open(stream, formats=READABLE)
        except Exception as error:
            raise _bad(path, error) from error
        with head:
            yield head


def read_picture(path: str | os.PathLike) -> Picture:
    """Read a picture file; see :func:`decode_picture`.

    Raises:
        BadImageError: If it is empty, damaged or no image, or holds what cannot be read without loss.
        OSError: If it cannot be read.
    """
    return decode_picture(Path(path).read_bytes(), path)


def decode_picture(content: bytes, name: str | os.PathLike) -> Picture:
    """Decode a picture of one of the :data:`READABLE` formats, gray, RGB, with a palette or alpha.

    Pictures of 9 to 15 bits get 16. Those of other colors, such as CMYK, become RGB. Of several pictures in a file the
    first is taken. The format is told by the content, not by the file's name.

    Args:
        content: The file's bytes.
        name: What errors call it.

    Raises:
        BadImageError: If it is empty, damaged or no image, or holds what cannot be read without loss.
    """
    try:
        with Image.open(BytesIO(content), formats=READABLE) as file:
            return _decode(file, content)
    # Decoders fail in many ways on damaged bytes: OSError, SyntaxError, struct.error ...
    except Exception as error:
        raise _bad(name, error, empty=not content) from error


def _bad(name: str | os.PathLike, error: Exception, empty: bool | None = None) -> BadImageError:
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        if empty is None:
            empty = Path(name).stat().st_size == 0
        reason = "the file is empty" if empty else "no known image format"
    elif isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS is not None:
        reason = f"it has more than {2 * Image.MAX_IMAGE_PIXELS} pixels (twice PIL.Image.MAX_IMAGE_PIXELS)"
    return BadImageError(f"{name}: not a readable image: {reason}")


def _decode(file: ImageFile.ImageFile, content: bytes) -> Picture:
    notes = []
    if (frames := getattr(file, "n_frames", 1)) > 1:
        notes.append(f"only the first of {frames} pictures in the file was read")
    raw = _raw_modes(file)
    tags: Mapping[int, Any] = getattr(file, "tag_v2", {})
    # Pillow refuses truncated data, which OpenCV would fill up in silence; but it has no 16-bit RGB.
    file.load()
    icc = file.info.get("icc_profile") or b""
    # Pillow and OpenCV both turn TIFFs upright on loading; Pillow then forgets the orientation.
    exif, orientation = _exif_of(file, notes)
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
        layers = _gray_of_16_bit(file, tags)
    elif file.mode in ("I", "F"):
        raise ValueError(f"32 bits per channel (mode {file.mode}), expected 8 or 16")
    elif _bits_of_color(file, raw, content) > 8:
        layers = _color_of_16_bit(file, content, tags, raw, notes)
    else:
        if "RGBX" in raw:
            notes.append("a fourth channel that is no alpha was dropped")
        layers = np.array(_to_known_mode(file))
    if layers.ndim == 3 and layers.shape[2] in (2, 4):
        pixels, alpha = layers[..., :-1], layers[..., -1].copy()
        pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    else:
        pixels, alpha = layers, None
    return Picture(pixels, alpha, orientation, exif, icc, _dpi_of(file), tuple(notes))


def _raw_modes(file: ImageFile.ImageFile) -> list[str]:
    """Return how Pillow was going to read each tile, such as ``"RGB;16L"``; it forgets that in loading."""
    modes = []
    for tile in file.tile:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        modes += [argument for argument in arguments if isinstance(argument, str)]
    return modes


def _bits_of_color(file: Image.Image, raw: list[str], content: bytes) -> int:
    """Return the bits per channel of a color picture, of which Pillow tells only that it will make them 8."""
    if any(";16" in mode for mode in raw):
        return 16
    if file.format == "PPM":
        return _maximum_of_ppm(content).bit_length()
    if file.format == "JPEG2000":
        # The marker of the codestream's size: 2 bytes of length, 2 of capabilities, 32 of sizes, 2 of the count.
        start = content.index(b"\xff\x51") + 40
        return max((byte & 0x7F) + 1 for byte in content[start : start + 3 * len(file.getbands()) : 3])
    return 8


def _maximum_of_ppm(content: bytes) -> int:
    """Return the largest value of a PPM file, 1 of the formats that do not say it."""
    words: list[bytes] = []
    for line in content[:4096].split(b"\n"):
        words += line.split(b"#")[0].split()
        if len(words) > 3:
            return int(words[3]) if words[0] in (b"P2", b"P3", b"P5", b"P6") else 1
    return 1


def _gray_of_16_bit(file: Image.Image, tags: Mapping[int, Any]) -> NDArray:
    gray = np.asarray(file)
    if not 0 <= gray.min() <= gray.max() <= 65535:
        raise ValueError("32 bits per channel, expected 8 or 16")
    # Of other formats, Pillow has made them 16.
    bits = tags.get(_BITS, (16,))[0]
    gray = np.rint(gray * (65535 / (2**bits - 1))).astype(np.uint16) if bits < 16 else gray.astype(np.uint16)
    # Pillow does so for 8 bits alone.
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        gray = 65535 - gray
    transparent = file.info.get("transparency")
    return gray if transparent is None else np.dstack([gray, np.where(gray == transparent, 0, 65535).astype(np.uint16)])


def _color_of_16_bit(
    file: Image.Image, content: bytes, tags: Mapping[int, Any], raw: list[str], notes: list[str]
) -> NDArray:
    """Decode by OpenCV, whose pixels are those that are stored, and make of them what the file says they are."""
    layers = None
    if file.mode in ("RGB", "RGBA", "RGBX", "LA") and file.format in ("PNG", "TIFF", "PPM"):
        layers = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if layers is None or layers.dtype != np.uint16 or layers.ndim != 3:
        raise ValueError("more than 8 bits per channel in a form that cannot be read; save it as PNG or TIFF")
    layers = cv2.cvtColor(layers, cv2.COLOR_BGRA2RGBA if layers.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    if file.format == "PPM" and (most := _maximum_of_ppm(content)) < 65535:
        return np.rint(np.minimum(layers, most) * (65535 / most)).astype(np.uint16)
    if file.format == "PNG":
        if any(mode.startswith("LA") for mode in raw):
            return layers[..., [0, 3]]
        if layers.shape[2] == 3 and (transparent := file.info.get("transparency")) is not None:
            alpha = np.where((layers == np.array(transparent)).all(2), 0, 65535).astype(np.uint16)
            return np.dstack([layers, alpha])
    if file.format == "TIFF" and layers.shape[2] == 4:
        extra = (*tags.get(_EXTRA, ()), None)[0]
        if extra == _PREMULTIPLIED:
            alpha = layers[..., 3:].astype(np.float64)
            color = np.where(alpha > 0, layers[..., :3] * 65535.0 / np.maximum(alpha, 1), 0)
            layers[..., :3] = np.rint(np.minimum(color, 65535))
        elif extra != _ALPHA:
            notes.append("a fourth channel that is no alpha was dropped")
            layers = np.ascontiguousarray(layers[..., :3])
    return layers


def _to_known_mode(file: Image.Image) -> Image.Image:
    if file.mode == "1":
        return file.convert("L")
    if file.mode in ("L", "RGB") and "transparency" not in file.info:
        return file
    if file.mode in ("L", "LA", "La"):
        return file.convert("LA")
    transparent = "transparency" in file.info or file.mode in ("RGBA", "RGBa", "PA")
    return file.convert("RGBA" if transparent else "RGB")


def _exif_of(file: Image.Image, notes: list[str]) -> tuple[bytes, int]:
    """Return EXIF data without the tags that a writer sets itself, and the orientation."""
    try:
        exif = file.getexif()
        orientation = exif.get(Base.Orientation, 1)
        for tag in _STRUCTURE & set(exif):
            del exif[tag]
        content = exif.tobytes() if len(exif) else b""
    # Cameras and programs write all sorts of things.
    except Exception as error:
        notes.append(f"its EXIF data is damaged and was dropped ({type(error).__name__}: {error})")
        return b"", 1
    return content, orientation if orientation in UPRIGHT else 1


def _dpi_of(file: Image.Image) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in file.info["dpi"])
    # Absent, or whatever a program has written there.
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
