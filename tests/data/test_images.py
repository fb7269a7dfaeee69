"""Every kind of image file has a defined outcome, and a bad one is named."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from panet_plugin.data import BadImageError, read_image, write_image

RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
GRAY = RGB[..., 0].copy()
RGB16 = np.random.default_rng(1).integers(0, 65536, (7, 5, 3), dtype=np.uint16)


def as_rgb(gray):
    return np.repeat(gray[..., None], 3, axis=2)


def pillow(image, name, mode=None):
    """Writer of one kind of file."""
    return lambda folder: Image.fromarray(image).convert(mode or Image.fromarray(image).mode).save(folder / name)


def opencv16(image, name):
    return lambda folder: cv2.imwrite(str(folder / name), image)


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("rgb.png", pillow(RGB, "rgb.png"), RGB),
        ("gray.png", pillow(GRAY, "gray.png"), as_rgb(GRAY)),
        ("gray_alpha.png", pillow(GRAY, "gray_alpha.png", "LA"), as_rgb(GRAY)),
        ("rgba.png", pillow(np.dstack([RGB, GRAY]), "rgba.png"), RGB),
        ("palette.png", pillow(GRAY // 16 * 16, "palette.png", "P"), as_rgb(GRAY // 16 * 16)),
        ("bits.png", pillow(GRAY // 128 * 255, "bits.png", "1"), None),
        ("16.png", opencv16(RGB16[..., ::-1], "16.png"), RGB16),
        ("16.tif", opencv16(RGB16[..., ::-1], "16.tif"), RGB16),
        ("gray16.png", opencv16(RGB16[..., 0], "gray16.png"), as_rgb(RGB16[..., 0])),
        ("rgba16.png", opencv16(np.dstack([RGB16[..., ::-1], RGB16[..., 0]]), "rgba16.png"), RGB16),
        ("rgb.bmp", pillow(RGB, "rgb.bmp"), RGB),
        ("an image.v1.png", pillow(RGB, "an image.v1.png"), RGB),
        ("画像.png", pillow(RGB, "画像.png"), RGB),
        ("one_pixel_wide.png", pillow(RGB[:, :1], "one_pixel_wide.png"), RGB[:, :1]),
    ],
)
def test_reads_as_rgb(tmp_path, name, write, expected):
    write(tmp_path)
    image = read_image(tmp_path / name)
    assert image.flags.c_contiguous
    assert image.shape[2] == 3
    if expected is not None:
        assert image.dtype == expected.dtype
        np.testing.assert_array_equal(image, expected)


def test_cmyk_jpeg_becomes_rgb(tmp_path):
    red = np.full((16, 16, 3), (200, 20, 30), np.uint8)
    Image.fromarray(red).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "cmyk.jpg"), red, atol=3)


def test_content_decides_and_not_the_name(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "png.jpg", format="PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "png.jpg"), RGB)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(RGB, -1))


def test_gray(tmp_path):
    write_image(tmp_path / "gray.png", GRAY)
    write_image(tmp_path / "rgb.png", RGB)
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png", gray=True), GRAY[..., None])
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(read_image(tmp_path / "rgb.png", gray=True)[..., 0], luma, atol=0.51)


def huge_png():
    """A small file that claims 100000 x 100000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 100000, 100000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"0" * 99))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize(
    "kind", ["empty", "text", "truncated png", "truncated 16-bit", "truncated jpeg", "flip", "huge"]
)
def test_bad_file_is_named(tmp_path, kind):
    path = tmp_path / "broken.png"
    large = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("no image")
    elif kind == "huge":
        path.write_bytes(huge_png())
    else:
        write_image(path, large.astype(np.uint16) * 257 if "16" in kind else large)
        if kind == "truncated jpeg":
            Image.fromarray(large).save(path, format="JPEG")
        content = bytearray(path.read_bytes())
        if kind == "flip":
            content[len(content) // 2] ^= 0xFF
        else:
            del content[len(content) // 2 :]
        path.write_bytes(content)
    with pytest.raises(BadImageError, match=r"broken\.png: not a readable image: "):
        read_image(path)


def test_32_bit_is_refused(tmp_path):
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(BadImageError, match=r"float\.tif.*32 bits"):
        read_image(tmp_path / "float.tif")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("image", [RGB, RGB16, GRAY, GRAY[..., None]], ids=["rgb", "rgb16", "gray", "one channel"])
def test_write_and_read(tmp_path, image):
    path = tmp_path / "new" / "folder" / "image.png"
    write_image(path, image)
    expected = image if image.shape[2:] == (3,) else as_rgb(image.reshape(7, 5))
    np.testing.assert_array_equal(read_image(path), expected)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("float.png", RGB.astype(np.float32)),
        ("two.png", RGB[..., :2]),
        ("line.png", RGB[0, 0]),
        ("empty.png", RGB[:0]),
        ("image.xyz", RGB),
        ("16.jpg", RGB16),
        ("16.webp", RGB16),
        ("16.bmp", RGB16[..., 0]),
        ("none", RGB),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, name, image):
    with pytest.raises(ValueError, match=name):
        write_image(tmp_path / name, image)
    assert not list(tmp_path.iterdir())


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    write_image(path, RGB)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_image(path, GRAY)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
