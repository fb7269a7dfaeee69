"""The reader of image files: pixels of 8 or 16 bits, alpha and metadata."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base

from panet_plugin.errors import PanetError
from panet_plugin.pixels import bands

#: Suffixes of files that are listed as images.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

#: Formats that are read. Others of Pillow's run programs: a file that claims to be EPS would be given to Ghostscript.
READABLE = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM", "GIF", "JPEG2000")

#: Functions that turn a stored image upright, by its EXIF orientation.
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

#: TIFF tags that describe how pixels are stored, which are not copied to another file.
_STRUCTURE = frozenset({
    *(254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 284, 301, 317, 318, 319, 320, 321, 322),
    *(323, 324, 325, 330, 332, 338, 339, 340, 341, 342, 347, 512, 513, 514, 529, 530, 531, 532),
    *(700, 33723, 34377, 34675),
})  # fmt: skip

#: TIFF tags that describe the meaning of values, and the tags' values that matter here.
_BITS, _PHOTOMETRIC, _EXTRA = 258, 262, 338
_WHITE_IS_ZERO, _PREMULTIPLIED, _ALPHA = 0, 1, 2

#: Bytes per pixel in Pillow's memory by mode, where these are not 4; I;16 and the like have 2.
_STORED = {"1": 1, "L": 1, "P": 1}

#: Upper bounds of further bytes per pixel that decoders allocate: measured. A progressive JPEG's coefficients are kept,
#: and the strip of a TIFF may be as large as the image.
_DECODERS = {**dict.fromkeys(("PNG", "BMP", "PPM", "GIF", "JPEG", "MPO"), 0), "TIFF": 8, "WEBP": 16, "AVIF": 10}
_PROGRESSIVE, _OTHER_DECODERS = 8, 30


_Read = TypeVar("_Read")


class BadImageError(PanetError, ValueError):
    """An image file is damaged, not an image, or unsuitable for its purpose."""


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored in a file.

    Attributes:
        pixels: ``(H, W)`` gray or ``(H, W, 3)`` RGB, uint8 or uint16.
        alpha: ``(H, W)`` of the same dtype, or None.
        orientation: EXIF orientation, 1 to 8.
        exif: EXIF data without the orientation, as a JPEG file holds it; empty if there is none.
        icc: Color profile; empty if there is none.
        dpi: Horizontal and vertical resolution in pixels per inch; None if unknown.
        notes: Descriptions of what was lost while reading it.
    """

    pixels: NDArray
    alpha: NDArray | None = None
    orientation: int = 1
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def files_in(folder: Path) -> Iterator[Path]:
    """Return all files in a folder except hidden ones, unordered."""
    return (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def list_images(folder: str | os.PathLike, recursive: bool = False) -> list[Path]:
    """Return the image files in a folder, by their suffixes, sorted; empty if there is no such folder.

    Names that begin with a dot are skipped, such as the ``._NAME`` that macOS writes beside files.

    Args:
        folder: The folder.
        recursive: Also list images in its subfolders.
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


class Head(NamedTuple):
    """The properties of an image in a file's header.

    Attributes:
        height: Height of the stored image, in pixels.
        width: Width of the stored image, in pixels.
        channels: 1 or 3, without alpha.
        alpha: Whether there is an alpha channel.
        depth: Bytes per value, 1 or 2.
        reading: Upper bound of the memory for reading the image, in bytes, including the image.
    """

    height: int
    width: int
    channels: int
    alpha: bool
    depth: int
    reading: int

    @property
    def held(self) -> int:
        """Size of the image in bytes."""
        return self.height * self.width * (self.channels + self.alpha) * self.depth


def read_head(path: str | os.PathLike) -> Head:
    """Read only the header of an image file.

    Raises:
        BadImageError: If the file is not an image.
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as stream:
        return _open(stream, path, _head)


@contextmanager
def open_head(path: str | os.PathLike) -> Iterator[ImageFile.ImageFile]:
    """Open an image file, reading only its header; errors as :func:`read_head`."""
    with Path(path).open("rb") as stream:
        try:
            head = Image.open(stream, formats=READABLE)
        except Exception as error:
            raise _bad(path, error, empty=not stream.seek(0, os.SEEK_END)) from error
        with head:
            yield head


def read_stored(path: str | os.PathLike) -> StoredImage:
    """Read an image file; see :func:`decode_stored`.

    Raises:
        BadImageError: If it is empty, damaged or not an image, or cannot be read without loss.
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as stream:
        return _open(stream, path, _decode)


def decode_stored(content: bytes, name: str | os.PathLike) -> StoredImage:
    """Decode an image in one of the :data:`READABLE` formats: gray, RGB, with a palette or alpha.

    Images of 9 to 15 bits are scaled to 16. Other color spaces, such as CMYK, are converted to RGB. If a file holds
    several images, the first is decoded. The format is determined by the content, not by the file's name.

    Args:
        content: The file's bytes.
        name: Name for error messages.

    Raises:
        BadImageError: If it is empty, damaged or not an image, or cannot be read without loss.
    """
    return _open(BytesIO(content), name, _decode)


def _open(stream: BinaryIO, name: str | os.PathLike, read: Callable[[ImageFile.ImageFile, BinaryIO], _Read]) -> _Read:
    try:
        with Image.open(stream, formats=READABLE) as file:
            return read(file, stream)
    # Decoders raise many errors on damaged bytes: OSError, SyntaxError, struct.error ...
    except Exception as error:
        raise _bad(name, error, empty=not stream.seek(0, os.SEEK_END)) from error


def _bad(name: str | os.PathLike, error: Exception, empty: bool) -> BadImageError:
    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "the file is empty" if empty else "unknown image format"
    elif isinstance(error, Image.DecompressionBombError) and Image.MAX_IMAGE_PIXELS is not None:
        reason = f"it has more than {2 * Image.MAX_IMAGE_PIXELS} pixels (twice PIL.Image.MAX_IMAGE_PIXELS)"
    return BadImageError(f"{name}: not a readable image: {reason}")


def _head(file: ImageFile.ImageFile, stream: BinaryIO) -> Head:
    raw = _raw_modes(file)
    alpha = "transparency" in file.info or file.mode in ("LA", "La", "RGBA", "RGBa", "PA")
    gray = file.mode in ("1", "L", "LA", "La") or file.mode.startswith("I")
    deep = file.mode.startswith("I") or (not gray and _bits_of_color(file, raw, stream) > 8)
    height, width = file.height, file.width
    head = Head(height, width, 1 if gray else 3, alpha, 2 if deep else 1, 0)
    stored = 2 if file.mode.startswith("I;16") else _STORED.get(file.mode, 4)
    decoder = _PROGRESSIVE if file.info.get("progressive") else _DECODERS.get(str(file.format), _OTHER_DECODERS)
    reading = height * width * (stored + decoder) + head.held
    if deep and not gray:
        # OpenCV needs the file's bytes, and its result twice.
        reading += 2 * head.held + max(head.held, stream.seek(0, os.SEEK_END))
    return head._replace(reading=reading)


def _decode(file: ImageFile.ImageFile, stream: BinaryIO) -> StoredImage:
    notes = []
    if (frames := getattr(file, "n_frames", 1)) > 1:
        notes.append(f"only the first of {frames} images in the file was read")
    raw = _raw_modes(file)
    tags: Mapping[int, Any] = getattr(file, "tag_v2", {})
    # Pillow refuses truncated data, which OpenCV would fill silently; but it has no 16-bit RGB.
    file.load()
    icc = file.info.get("icc_profile") or b""
    # Pillow and OpenCV both turn TIFFs upright when loading; Pillow then drops the orientation.
    exif, orientation = _exif_of(file, notes)
    convert: Callable[[slice], NDArray]
    if file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM")):
        convert = partial(_gray_of_16_bit, file, tags)
    elif file.mode in ("I", "F"):
        raise ValueError(f"32 bits per channel (mode {file.mode}), expected 8 or 16")
    elif _bits_of_color(file, raw, stream) > 8:
        convert = _color_of_16_bit(file, stream, tags, raw, notes)
    else:
        if "RGBX" in raw:
            notes.append("a fourth channel that is not alpha was dropped")
        convert = partial(_color_of_8_bit, file)
    pixels, alpha = _assemble(convert, file.height, file.width)
    return StoredImage(pixels, alpha, orientation, exif, icc, _dpi_of(file), tuple(notes))


def _assemble(convert: Callable[[slice], NDArray], height: int, width: int) -> tuple[NDArray, NDArray | None]:
    """Return pixels and alpha of an image; ``convert`` returns its rows as gray, gray and alpha, RGB or RGBA.

    At most one band is in memory twice.
    """
    pixels: NDArray
    alpha: NDArray | None
    for rows in bands(height, width):
        layers = np.atleast_3d(convert(rows))
        opaque = layers.shape[2] % 2 == 1
        color = layers if opaque else layers[..., :-1]
        if color.shape[2] == 1:
            color = color[..., 0]
        if rows.start == 0:
            pixels = np.empty((height, *color.shape[1:]), layers.dtype)
            alpha = None if opaque else np.empty((height, width), layers.dtype)
        pixels[rows] = color
        if alpha is not None:
            alpha[rows] = layers[..., -1]
    return pixels, alpha


def _band(file: Image.Image, rows: slice) -> Image.Image:
    return file.crop((0, rows.start, file.width, rows.stop))


def _raw_modes(file: ImageFile.ImageFile) -> list[str]:
    """Return the raw mode of each tile, such as ``"RGB;16L"``, which Pillow drops when it loads the image."""
    modes = []
    for tile in file.tile:
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        modes += [argument for argument in arguments if isinstance(argument, str)]
    return modes


def _bits_of_color(file: Image.Image, raw: list[str], stream: BinaryIO) -> int:
    """Return the bits per channel of a color image as stored; Pillow would convert them to 8."""
    if any(";16" in mode for mode in raw):
        return 16
    if file.format == "PPM":
        return _maximum_of_ppm(stream).bit_length()
    if file.format == "JPEG2000":
        stream.seek(0)
        content = stream.read()
        # The codestream's SIZ marker: 2 bytes of length, 2 of capabilities, 32 of sizes, 2 of the count.
        start = content.index(b"\xff\x51") + 40
        return max((byte & 0x7F) + 1 for byte in content[start : start + 3 * len(file.getbands()) : 3])
    return 8


def _maximum_of_ppm(stream: BinaryIO) -> int:
    """Return the maximum value declared in a PPM file; 1 for the formats without one."""
    words: list[bytes] = []
    stream.seek(0)
    for line in stream.read(4096).split(b"\n"):
        words += line.split(b"#")[0].split()
        if len(words) > 3:
            return int(words[3]) if words[0] in (b"P2", b"P3", b"P5", b"P6") else 1
    return 1


def _gray_of_16_bit(file: Image.Image, tags: Mapping[int, Any], rows: slice) -> NDArray:
    gray = np.asarray(_band(file, rows))
    if not 0 <= gray.min() <= gray.max() <= 65535:
        raise ValueError("32 bits per channel, expected 8 or 16")
    # For other formats, Pillow has scaled them to 16.
    bits = tags.get(_BITS, (16,))[0]
    gray = np.rint(gray * (65535 / (2**bits - 1))).astype(np.uint16) if bits < 16 else gray.astype(np.uint16)
    # Pillow inverts only images of 8 bits.
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        gray = 65535 - gray
    transparent = file.info.get("transparency")
    return gray if transparent is None else np.dstack([gray, np.where(gray == transparent, 0, 65535).astype(np.uint16)])


def _color_of_16_bit(
    file: Image.Image, stream: BinaryIO, tags: Mapping[int, Any], raw: list[str], notes: list[str]
) -> Callable[[slice], NDArray]:
    """Decode with OpenCV, which returns the stored values, and interpret them as the file declares."""
    decoded = None
    if file.mode in ("RGB", "RGBA", "RGBX", "LA") and file.format in ("PNG", "TIFF", "PPM"):
        stream.seek(0)
        decoded = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3:
        raise ValueError("more than 8 bits per channel in an unsupported format; save it as PNG or TIFF")
    four = decoded.shape[2] == 4
    most = _maximum_of_ppm(stream) if file.format == "PPM" else 65535
    gray = file.format == "PNG" and any(mode.startswith("LA") for mode in raw)
    transparent = file.info.get("transparency") if file.format == "PNG" and not four else None
    extra = (*tags.get(_EXTRA, ()), None)[0] if file.format == "TIFF" and four else _ALPHA
    if extra not in (_PREMULTIPLIED, _ALPHA):
        notes.append("a fourth channel that is not alpha was dropped")

    def convert(rows: slice) -> NDArray:
        layers = cv2.cvtColor(decoded[rows], cv2.COLOR_BGRA2RGBA if four else cv2.COLOR_BGR2RGB)
        if most < 65535:
            return np.rint(np.minimum(layers, most) * (65535 / most)).astype(np.uint16)
        if gray:
            return layers[..., [0, 3]]
        if transparent is not None:
            alpha = np.where((layers == np.array(transparent)).all(2), 0, 65535).astype(np.uint16)
            return np.dstack([layers, alpha])
        if extra == _PREMULTIPLIED:
            cover = layers[..., 3:].astype(np.float64)
            color = np.where(cover > 0, layers[..., :3] * 65535.0 / np.maximum(cover, 1), 0)
            layers[..., :3] = np.rint(np.minimum(color, 65535))
        return layers if extra in (_PREMULTIPLIED, _ALPHA) else layers[..., :3]

    return convert


def _color_of_8_bit(file: Image.Image, rows: slice) -> NDArray:
    return np.asarray(_to_known_mode(_band(file, rows)))


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
    """Return EXIF data, without the tags that a writer sets itself, and the orientation."""
    try:
        exif = file.getexif()
        orientation = exif.get(Base.Orientation, 1)
        for tag in _STRUCTURE & set(exif):
            del exif[tag]
        content = exif.tobytes() if len(exif) else b""
    # Cameras and programs write invalid data of many kinds.
    except Exception as error:
        notes.append(f"its EXIF data is damaged and was dropped ({type(error).__name__}: {error})")
        return b"", 1
    return content, orientation if orientation in UPRIGHT else 1


def _dpi_of(file: Image.Image) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in file.info["dpi"])
    # Absent or invalid.
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (across, down) if 0 < across < 1e6 and 0 < down < 1e6 else None
