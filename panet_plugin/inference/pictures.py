"""Picture files with what belongs to them: alpha, EXIF data, ICC profile."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags, UnidentifiedImageError
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from panet_plugin.data import BadImageError
from panet_plugin.metrics import quantize

#: Formats by suffix.
FORMATS = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF"},
}
WITH_ALPHA = ("PNG", "WEBP", "TIFF")
WITH_16_BIT = ("PNG", "TIFF")
WITH_METADATA = ("PNG", "JPEG", "WEBP", "TIFF")

#: How a picture is written: JPEG with little loss and all of its colours, the others without loss.
OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}, "PNG": {}, "BMP": {}}

#: The most bytes of EXIF data that a JPEG file holds.
LARGEST_EXIF_OF_JPEG = 65533

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


@dataclass(frozen=True)
class Picture:
    """A picture as its file stores it.

    Attributes:
        pixels: ``(H, W)`` gray or ``(H, W, 3)`` RGB, uint8 or uint16.
        alpha: ``(H, W)`` of the same type, or None.
        orientation: EXIF's, 1 to 8: how it is to be turned to be upright.
        exif: EXIF data without the orientation, as a JPEG file holds it; empty if there is none.
        icc: Colour profile; empty if there is none.
        notes: What was lost in reading it.
    """

    pixels: NDArray
    alpha: NDArray | None = None
    orientation: int = 1
    exif: bytes = b""
    icc: bytes = b""
    notes: tuple[str, ...] = ()


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Return the stored height and width of a picture; only the head of the file is read.

    Raises:
        BadImageError: If the file is not an image.
        OSError: If it cannot be read.
    """
    with Path(path).open("rb") as stream:
        try:
            with Image.open(stream) as file:
                return file.height, file.width
        except Exception as error:
            raise _bad(path, error) from error


def read_picture(path: str | os.PathLike) -> Picture:
    """Read PNG, JPEG, WebP, TIFF, BMP or another of Pillow's formats, 8 or 16 bit, gray, RGB, with a palette or alpha.

    Pictures of other colours, such as CMYK, become RGB. Of several pictures in a file the first is read.

    Raises:
        BadImageError: If the file is empty, truncated or no image, or has more than 16 bits per channel.
        OSError: If it cannot be read.
    """
    content = Path(path).read_bytes()
    try:
        with Image.open(BytesIO(content)) as file:
            return _decode(file, content)
    # Decoders fail in many ways on damaged bytes: OSError, SyntaxError, struct.error, decompression bombs ...
    except Exception as error:
        raise _bad(path, error) from error


def encode_picture(picture: Picture, suffix: str) -> tuple[bytes, list[str]]:
    """Encode a picture, turned upright.

    Args:
        picture: What to encode; 16 bits are rounded to 8 where the format does not hold them.
        suffix: A key of :data:`FORMATS`, in any case.

    Returns:
        The file's bytes, and what the format cannot hold.

    Raises:
        ValueError: If there is no such format, or the picture is too large for it.
    """
    if (kind := FORMATS.get(suffix.lower())) is None:
        raise ValueError(f"cannot write {suffix or 'files without a suffix'}: expected one of {', '.join(FORMATS)}")
    notes = []
    pixels, alpha, exif, icc = picture.pixels, picture.alpha, picture.exif, picture.icc
    if alpha is not None and kind not in WITH_ALPHA:
        notes.append(f"{kind} has no alpha: it was dropped")
        alpha = None
    if pixels.dtype == np.uint16 and kind not in WITH_16_BIT:
        notes.append(f"{kind} has 8 bits per channel: 16 were rounded")
        pixels, alpha = (image if image is None else quantize(image / 65535) for image in (pixels, alpha))
    if kind not in WITH_METADATA and (exif or icc):
        notes.append(f"{kind} has no EXIF data and no ICC profile: they were dropped")
        exif = icc = b""
    if pixels.ndim == 2 and (kind == "WEBP" or (alpha is not None and pixels.dtype == np.uint16)):
        # No gray, or none of 16 bits with alpha that programs read.
        pixels = np.stack([pixels] * 3, axis=2)
    colours = {2: b"GRAY", 3: b"RGB "}[pixels.ndim]
    if icc and icc[16:20] != colours:
        notes.append(f"its ICC profile is not for {colours.decode().strip()} pictures: it was dropped")
        icc = b""
    upright = UPRIGHT[picture.orientation]
    layers = upright(pixels if alpha is None else np.dstack([pixels, alpha]))
    exif = _with_size(exif, *layers.shape[:2]) if exif else b""
    if kind == "JPEG" and len(exif) > LARGEST_EXIF_OF_JPEG:
        notes.append("its EXIF data is too long for JPEG: it was dropped")
        exif = b""
    layers = np.ascontiguousarray(layers)
    try:
        return _encode(layers, kind, exif, icc), notes
    except ValueError:
        # One encoder checks profiles, the others do not.
        if not icc:
            raise
        notes.append("its ICC profile is damaged: it was dropped")
        return _encode(layers, kind, exif, b""), notes


def _encode(layers: NDArray, kind: str, exif: bytes, icc: bytes) -> bytes:
    if kind == "TIFF":
        return _tiff(layers, exif, icc)
    if layers.dtype == np.uint16:
        return _png_of_16_bit(layers, exif, icc)
    stream = BytesIO()
    metadata = {key: value for key, value in (("exif", exif), ("icc_profile", icc)) if value}
    Image.fromarray(layers).save(stream, kind, **OPTIONS[kind], **metadata)
    return stream.getvalue()


def _png_of_16_bit(layers: NDArray, exif: bytes, icc: bytes) -> bytes:
    """Encode by OpenCV, since Pillow has no 16-bit RGB."""
    if layers.ndim == 3:
        layers = cv2.cvtColor(layers, cv2.COLOR_RGBA2BGRA if layers.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    kinds, values = [], []
    for metadata, value in (
        (cv2.IMAGE_METADATA_EXIF, exif.removeprefix(b"Exif\0\0")),
        (cv2.IMAGE_METADATA_ICCP, icc),
    ):
        if value:
            kinds.append(metadata)
            values.append(np.frombuffer(value, np.uint8))
    done, content = cv2.imencodeWithMetadata(".png", layers, kinds, values)
    if not done:
        raise ValueError("OpenCV cannot encode it")
    return content.tobytes()


def _tiff(layers: NDArray, exif: bytes, icc: bytes) -> bytes:
    """Encode as one deflated strip behind Pillow's tags: neither Pillow nor OpenCV writes 16 bits and EXIF data."""
    channels = layers.shape[2] if layers.ndim == 3 else 1
    strip = zlib.compress(layers.astype(layers.dtype.newbyteorder("<")).tobytes())
    tags = ImageFileDirectory_v2()
    if exif:
        data = Image.Exif()
        data.load(exif)
        for tag, value in data.items():
            tags[tag] = data.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else value
    tags[Base.ImageWidth], tags[Base.ImageLength] = layers.shape[1], layers.shape[0]
    tags[Base.BitsPerSample] = (layers.dtype.itemsize * 8,) * channels
    tags[Base.Compression] = 8  # Adobe's deflate
    tags[Base.PhotometricInterpretation] = 2 if channels >= 3 else 1  # RGB or black is zero
    tags[Base.StripOffsets] = (0,)  # right behind the tags
    tags[Base.SamplesPerPixel] = channels
    tags[Base.RowsPerStrip] = layers.shape[0]
    tags[Base.StripByteCounts] = (len(strip),)
    if channels in (2, 4):
        tags[338] = (2,)  # the last is alpha, by which the others are not multiplied
    if icc:
        tags.tagtype[34675] = TiffTags.UNDEFINED
        tags[34675] = icc
    stream = BytesIO()
    tags.save(stream)
    stream.write(strip)
    return stream.getvalue()


def _decode(file: Image.Image, content: bytes) -> Picture:
    notes = []
    if getattr(file, "n_frames", 1) > 1:
        notes.append(f"only the first of {file.n_frames} pictures in the file was restored")
    encoding = str(file.tile)
    # Pillow refuses truncated data, which OpenCV would fill up in silence; but it has no 16-bit RGB.
    file.load()
    icc = file.info.get("icc_profile") or b""
    # Pillow and OpenCV both turn TIFFs upright on loading; Pillow then forgets the orientation.
    exif, orientation = _exif_of(file, notes)
    if ";16" in encoding:
        layers = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if layers is None or layers.dtype != np.uint16:
            raise ValueError("16 bits per channel in a form that cannot be read")
        if layers.ndim == 3:
            layers = cv2.cvtColor(layers, cv2.COLOR_BGRA2RGBA if layers.shape[2] == 4 else cv2.COLOR_BGR2RGB)
            if "LA;16" in encoding:
                layers = layers[..., [0, 3]]
    else:
        layers = np.array(_to_known_mode(file))
    if layers.ndim == 3 and layers.shape[2] in (2, 4):
        pixels, alpha = layers[..., :-1], layers[..., -1].copy()
        pixels = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    else:
        pixels, alpha = layers, None
    return Picture(pixels, alpha, orientation, exif, icc, tuple(notes))


def _to_known_mode(file: Image.Image) -> Image.Image:
    if file.mode in ("I", "F"):
        raise ValueError(f"32 bits per channel (mode {file.mode}), expected 8 or 16")
    if file.mode == "1":
        return file.convert("L")
    if file.mode in ("L", "RGB") and "transparency" not in file.info:
        return file
    if file.mode in ("L", "LA", "La"):
        return file.convert("LA")
    transparent = "transparency" in file.info or file.mode in ("RGBA", "RGBa", "PA")
    return file.convert("RGBA" if transparent else "RGB")


def _exif_of(file: Image.Image, notes: list[str]) -> tuple[bytes, int]:
    """Return EXIF data without the tags that this module sets itself, and the orientation."""
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


def _with_size(exif: bytes, height: int, width: int) -> bytes:
    """Return EXIF data that states this size wherever it stated one."""
    data = Image.Exif()
    data.load(exif)
    details = data.get_ifd(IFD.Exif)
    for tag, side in ((Base.ExifImageWidth, width), (Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = side
    return data.tobytes()


def _bad(path: str | os.PathLike, error: Exception) -> BadImageError:
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        return BadImageError(
            f"{path}: not a readable image: {'the file is empty' if empty else 'no known image format'}"
        )
    return BadImageError(f"{path}: not a readable image: {error}")
