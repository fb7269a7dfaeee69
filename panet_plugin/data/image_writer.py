"""The writer of image files, with alpha, EXIF data, ICC profile and resolution."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from panet_plugin.data.image_reader import UPRIGHT, StoredImage
from panet_plugin.pixels import bands, quantize

#: Formats by suffix.
FORMATS = {
    **{".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"},
    **{".tif": "TIFF", ".tiff": "TIFF"},
}
WITH_ALPHA = ("PNG", "WEBP", "TIFF")
WITH_16_BIT = ("PNG", "TIFF")
WITH_METADATA = ("PNG", "JPEG", "WEBP", "TIFF")
WITH_DPI = ("PNG", "JPEG", "TIFF", "BMP")

#: Longest side in pixels that a format supports, where that is a limit in practice.
LONGEST = {"JPEG": 65500, "WEBP": 16383}

#: Pillow's options: JPEG with little loss and without chroma subsampling, the others lossless.
OPTIONS: dict[str, dict[str, Any]] = {
    **{"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True, "exact": True}},
    **{"PNG": {}, "BMP": {}},
}

#: Maximum bytes of EXIF data in a JPEG file.
LARGEST_EXIF_OF_JPEG = 65533


def check_format(suffix: str, height: int, width: int) -> str:
    """Return the format of a file suffix, in any case; ValueError if there is none, or it does not support the size."""
    if (kind := FORMATS.get(suffix.lower())) is None:
        raise ValueError(f"cannot write {suffix or 'files without a suffix'}: expected one of {', '.join(FORMATS)}")
    if max(height, width) > (most := LONGEST.get(kind, 2**31 - 1)):
        raise ValueError(f"the result would have {width}x{height} pixels, expected at most {most} per side for {kind}")
    return kind


def encode_stored(image: StoredImage, suffix: str, stream: BinaryIO) -> list[str]:
    """Encode an image, turned upright.

    Args:
        image: The image; 16 bits are rounded to 8 if the format does not support them.
        suffix: A key of :data:`FORMATS`, in any case.
        stream: Destination; it is written from the beginning.

    Returns:
        Descriptions of what the format does not support and was dropped.

    Raises:
        ValueError: If there is no such format, or the image is too large for it.
        OSError: If the stream cannot be written.
    """
    kind = check_format(suffix, *image.pixels.shape[:2])
    notes: list[str] = []
    exif, icc, dpi = image.exif, image.icc, image.dpi
    alpha = image.alpha is not None
    if alpha and kind not in WITH_ALPHA:
        notes.append(f"{kind} does not support alpha: it was dropped")
        alpha = False
    deep = image.pixels.dtype == np.uint16
    if deep and kind not in WITH_16_BIT:
        notes.append(f"{kind} does not support 16 bits per channel: they were rounded to 8")
        deep = False
    if kind not in WITH_METADATA and (exif or icc):
        notes.append(f"{kind} does not support EXIF data and ICC profiles: they were dropped")
        exif = icc = b""
    if dpi and kind not in WITH_DPI:
        notes.append(f"{kind} does not support a resolution: it was dropped")
        dpi = None
    # WebP has no gray images, and no program reads 16-bit gray with alpha.
    gray = image.pixels.ndim == 2 and not (kind == "WEBP" or (alpha and deep))
    colors = b"GRAY" if gray else b"RGB "
    if icc and icc[16:20] != colors:
        notes.append(f"its ICC profile is not for {colors.decode().strip()} images: it was dropped")
        icc = b""
    layers = _Layers(image, gray, alpha, deep)
    if dpi and image.orientation > 4:
        dpi = dpi[::-1]
    exif = _with_size(exif, layers.height, layers.width) if exif else b""
    if kind == "JPEG" and len(exif) > LARGEST_EXIF_OF_JPEG:
        notes.append("its EXIF data is too long for JPEG: it was dropped")
        exif = b""
    try:
        _encode(layers, kind, exif, icc, dpi, stream)
    except ValueError:
        # Only some encoders check profiles.
        if not icc:
            raise
        notes.append("its ICC profile is damaged: it was dropped")
        stream.seek(0)
        stream.truncate()
        _encode(layers, kind, exif, b"", dpi, stream)
    return notes


class _Layers:
    """The layers of an image to write, upright, band by band, so that at most one band is in memory twice."""

    def __init__(self, image: StoredImage, gray: bool, alpha: bool, deep: bool) -> None:
        upright = UPRIGHT[image.orientation]
        self._pixels = upright(image.pixels)
        self._alpha = upright(image.alpha) if alpha and image.alpha is not None else None
        self.height, self.width = self._pixels.shape[:2]
        self.channels = (1 if gray else 3) + alpha
        self.dtype = np.dtype(np.uint16 if deep else np.uint8)

    def __iter__(self) -> Iterator[tuple[slice, NDArray]]:
        """Yield rows and their ``(h, w)`` or ``(h, w, channels)``."""
        for rows in bands(self.height, self.width):
            color = self._pixels[rows]
            if color.ndim == 2 and self.channels >= 3:
                color = np.stack([color] * 3, axis=2)
            layers = color if self._alpha is None else np.dstack([color, self._alpha[rows]])
            yield rows, layers if layers.dtype == self.dtype else quantize(layers / 65535)


def _encode(
    layers: _Layers, kind: str, exif: bytes, icc: bytes, dpi: tuple[float, float] | None, stream: BinaryIO
) -> None:
    if kind == "TIFF":
        _write_tiff(layers, exif, icc, dpi, stream)
    elif layers.dtype == np.uint16:
        _write_png_of_16_bit(layers, exif, icc, dpi, stream)
    else:
        image = Image.new({1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[layers.channels], (layers.width, layers.height))
        for rows, band in layers:
            image.paste(Image.fromarray(np.ascontiguousarray(band)), (0, rows.start))
        metadata = {key: value for key, value in (("exif", exif), ("icc_profile", icc), ("dpi", dpi)) if value}
        image.save(stream, kind, **OPTIONS[kind], **metadata)


def _write_png_of_16_bit(
    layers: _Layers, exif: bytes, icc: bytes, dpi: tuple[float, float] | None, stream: BinaryIO
) -> None:
    """Encode by OpenCV, since Pillow has no 16-bit RGB."""
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[layers.channels]
    stored = np.empty((layers.height, layers.width, layers.channels), np.uint16)
    for rows, band in layers:
        stored[rows] = np.atleast_3d(band)[..., order]
    kinds, values = [], []
    for metadata, value in (
        (cv2.IMAGE_METADATA_EXIF, exif.removeprefix(b"Exif\0\0")),
        (cv2.IMAGE_METADATA_ICCP, icc),
    ):
        if value:
            kinds.append(metadata)
            values.append(np.frombuffer(value, np.uint8))
    done, encoded = cv2.imencodeWithMetadata(".png", stored, kinds, values)
    if not done:
        raise ValueError("OpenCV cannot encode it")
    # After the header of 33 bytes: pixels per meter.
    content = encoded.data
    stream.write(content[:33])
    if dpi:
        chunk = b"pHYs" + struct.pack(">IIB", *(round(value / 0.0254) for value in dpi), 1)
        stream.write(struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    stream.write(content[33:])


def _write_tiff(layers: _Layers, exif: bytes, icc: bytes, dpi: tuple[float, float] | None, stream: BinaryIO) -> None:
    """Encode as one deflated strip after Pillow's tags: neither Pillow nor OpenCV writes both 16 bits and EXIF data."""
    compressor = zlib.compressobj()
    strip = [compressor.compress(band.astype(layers.dtype.newbyteorder("<")).tobytes()) for _, band in layers]
    strip.append(compressor.flush())
    tags = ImageFileDirectory_v2()
    if exif:
        data = Image.Exif()
        data.load(exif)
        for tag, value in data.items():
            tags[tag] = data.get_ifd(tag) if tag in TiffTags.TAGS_V2_GROUPS else value
    tags[Base.ImageWidth], tags[Base.ImageLength] = layers.width, layers.height
    tags[Base.BitsPerSample] = (layers.dtype.itemsize * 8,) * layers.channels
    tags[Base.Compression] = 8  # Adobe's deflate
    tags[Base.PhotometricInterpretation] = 2 if layers.channels >= 3 else 1  # RGB or black is zero
    tags[Base.StripOffsets] = (0,)  # right behind the tags
    tags[Base.SamplesPerPixel] = layers.channels
    tags[Base.RowsPerStrip] = layers.height
    tags[Base.StripByteCounts] = (sum(map(len, strip)),)
    if dpi:
        tags[Base.XResolution], tags[Base.YResolution] = dpi
        tags[Base.ResolutionUnit] = 2  # inches
    if layers.channels in (2, 4):
        tags[338] = (2,)  # the last is alpha, by which the others are not multiplied
    if icc:
        tags.tagtype[34675] = TiffTags.UNDEFINED
        tags[34675] = icc
    tags.save(stream)
    stream.writelines(strip)


def _with_size(exif: bytes, height: int, width: int) -> bytes:
    """Return EXIF data with the size replaced, if it has one."""
    data = Image.Exif()
    data.load(exif)
    details = data.get_ifd(IFD.Exif)
    for tag, side in ((Base.ExifImageWidth, width), (Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = side
    return data.tobytes()
