"""Writing picture files with what belongs to them: alpha, EXIF data, ICC profile, resolution."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from panet_plugin.data.pictures import UPRIGHT, Picture
from panet_plugin.metrics import quantize

#: Formats by suffix.
FORMATS = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF"},
}
WITH_ALPHA = ("PNG", "WEBP", "TIFF")
WITH_16_BIT = ("PNG", "TIFF")
WITH_METADATA = ("PNG", "JPEG", "WEBP", "TIFF")
WITH_DPI = ("PNG", "JPEG", "TIFF", "BMP")

#: The longest side in pixels of pictures that a format holds; of the others it is longer than anything.
LONGEST = {"JPEG": 65500, "WEBP": 16383}

#: How a picture is written: JPEG with little loss and all of its colours, the others without loss.
OPTIONS: dict[str, dict[str, Any]] = {
    **{"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}},
    **{"PNG": {}, "BMP": {}},
}

#: The most bytes of EXIF data that a JPEG file holds.
LARGEST_EXIF_OF_JPEG = 65533


def check_format(suffix: str, height: int, width: int) -> None:
    """Raise ValueError unless there is a format with this suffix, in any case, that holds pictures of such a size."""
    if (kind := FORMATS.get(suffix.lower())) is None:
        raise ValueError(f"cannot write {suffix or 'files without a suffix'}: expected one of {', '.join(FORMATS)}")
    if max(height, width) > (most := LONGEST.get(kind, 2**31 - 1)):
        raise ValueError(f"the result would have {width}x{height} pixels, and {kind} holds {most} along a side at most")


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
    check_format(suffix, *picture.pixels.shape[:2])
    kind, notes = FORMATS[suffix.lower()], []
    pixels, alpha, exif, icc = picture.pixels, picture.alpha, picture.exif, picture.icc
    if alpha is not None and kind not in WITH_ALPHA:
        notes.append(f"{kind} has no alpha: it was dropped")
        alpha = None
    if pixels.dtype == np.uint16 and kind not in WITH_16_BIT:
        notes.append(f"{kind} has 8 bits per channel: 16 were rounded")
        pixels, alpha = quantize(pixels / 65535), None if alpha is None else quantize(alpha / 65535)
    if kind not in WITH_METADATA and (exif or icc):
        notes.append(f"{kind} has no EXIF data and no ICC profile: they were dropped")
        exif = icc = b""
    dpi = picture.dpi
    if dpi and kind not in WITH_DPI:
        notes.append(f"{kind} has no resolution: it was dropped")
        dpi = None
    if pixels.ndim == 2 and (kind == "WEBP" or (alpha is not None and pixels.dtype == np.uint16)):
        # No gray, or none of 16 bits with alpha that programs read.
        pixels = np.stack([pixels] * 3, axis=2)
    colours = {2: b"GRAY", 3: b"RGB "}[pixels.ndim]
    if icc and icc[16:20] != colours:
        notes.append(f"its ICC profile is not for {colours.decode().strip()} pictures: it was dropped")
        icc = b""
    upright = UPRIGHT[picture.orientation]
    layers = upright(pixels if alpha is None else np.dstack([pixels, alpha]))
    if dpi and picture.orientation > 4:
        dpi = dpi[::-1]
    exif = _with_size(exif, *layers.shape[:2]) if exif else b""
    if kind == "JPEG" and len(exif) > LARGEST_EXIF_OF_JPEG:
        notes.append("its EXIF data is too long for JPEG: it was dropped")
        exif = b""
    layers = np.ascontiguousarray(layers)
    try:
        return _encode(layers, kind, exif, icc, dpi), notes
    except ValueError:
        # One encoder checks profiles, the others do not.
        if not icc:
            raise
        notes.append("its ICC profile is damaged: it was dropped")
        return _encode(layers, kind, exif, b"", dpi), notes


def _encode(layers: NDArray, kind: str, exif: bytes, icc: bytes, dpi: tuple[float, float] | None) -> bytes:
    if kind == "TIFF":
        return _tiff(layers, exif, icc, dpi)
    if layers.dtype == np.uint16:
        return _png_of_16_bit(layers, exif, icc, dpi)
    stream = BytesIO()
    metadata = {key: value for key, value in (("exif", exif), ("icc_profile", icc), ("dpi", dpi)) if value}
    Image.fromarray(layers).save(stream, kind, **OPTIONS[kind], **metadata)
    return stream.getvalue()


def _png_of_16_bit(layers: NDArray, exif: bytes, icc: bytes, dpi: tuple[float, float] | None) -> bytes:
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
    done, encoded = cv2.imencodeWithMetadata(".png", layers, kinds, values)
    if not done:
        raise ValueError("OpenCV cannot encode it")
    content = encoded.tobytes()
    if dpi:
        # Behind the header, which takes 33 bytes: pixels per meter.
        chunk = b"pHYs" + struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)
        chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        content = content[:33] + chunk + content[33:]
    return content


def _tiff(layers: NDArray, exif: bytes, icc: bytes, dpi: tuple[float, float] | None) -> bytes:
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
    if dpi:
        tags[Base.XResolution], tags[Base.YResolution] = dpi
        tags[Base.ResolutionUnit] = 2  # inches
    if channels in (2, 4):
        tags[338] = (2,)  # the last is alpha, by which the others are not multiplied
    if icc:
        tags.tagtype[34675] = TiffTags.UNDEFINED
        tags[34675] = icc
    stream = BytesIO()
    tags.save(stream)
    stream.write(strip)
    return stream.getvalue()


def _with_size(exif: bytes, height: int, width: int) -> bytes:
    """Return EXIF data that states this size wherever it stated one."""
    data = Image.Exif()
    data.load(exif)
    details = data.get_ifd(IFD.Exif)
    for tag, side in ((Base.ExifImageWidth, width), (Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = side
    return data.tobytes()
