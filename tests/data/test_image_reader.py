"""What the values in an image file stand for is what is read, by both readers; nothing is lost without a word."""

import struct
import zlib
from io import BytesIO

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from panet_plugin.data import BadImageError, read_image
from panet_plugin.data.image_reader import decode_stored, list_images, read_stored

HEIGHT, WIDTH = 40, 48
RAMP = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
RGB16 = np.dstack([RAMP, RAMP[::-1], RAMP[:, ::-1]])


def tiff_of_12_bits(values):
    """Two values in three bytes, which no library here writes."""
    pairs = values.astype(np.uint32).reshape(-1, 2)
    high, low = pairs[:, 0], pairs[:, 1]
    strip = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], 1).astype(np.uint8).tobytes()
    tags = [(256, WIDTH), (257, HEIGHT), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, HEIGHT)]
    tags.append((279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + strip


def tiff(array, **options):
    stream = BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def ppm(array, kind=b"P6", most=65535):
    return kind + b"\n# a comment\n%d %d\n%d\n" % (WIDTH, HEIGHT, most) + array.astype(">u2").tobytes()


def by_pillow(image, kind, **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_opencv(image, suffix):
    return cv2.imencode(suffix, image)[1].tobytes()


def check(tmp_path, content, pixels, alpha=None, atol=0):
    path = tmp_path / "picture"
    path.write_bytes(content)
    picture = read_stored(path)
    assert picture.pixels.dtype == pixels.dtype
    np.testing.assert_allclose(picture.pixels.astype(int), pixels.astype(int), rtol=0, atol=atol)
    if alpha is None:
        assert picture.alpha is None
    else:
        np.testing.assert_array_equal(picture.alpha, alpha)
    # The other reader says the same.
    rgb = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
    np.testing.assert_allclose(read_image(path).astype(int), rgb.astype(int), rtol=0, atol=atol)
    assert read_image(path, gray=None).shape[2] == (1 if pixels.ndim == 2 else 3)
    return picture


def test_gray_of_12_bits_fills_16(tmp_path):
    check(tmp_path, tiff_of_12_bits(RAMP >> 4), np.rint((RAMP >> 4) * (65535 / 4095)).astype(np.uint16))


@pytest.mark.parametrize("kind", ["JPEG2000", "PNG", "TIFF"])
def test_gray_of_16_bits(tmp_path, kind):
    options = {"irreversible": False} if kind == "JPEG2000" else {}
    check(tmp_path, by_pillow(Image.fromarray(RAMP), kind, **options), RAMP)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_which_end_is_white(tmp_path, byteorder, photometric, dtype):
    gray = RAMP if dtype == np.uint16 else (RAMP // 257).astype(np.uint8)
    stored = np.iinfo(dtype).max - gray if photometric == "miniswhite" else gray
    content = tiff(stored, photometric=photometric, byteorder=byteorder)
    if (dtype, photometric, byteorder) == (np.uint16, "miniswhite", ">"):
        with pytest.raises(BadImageError, match="unknown image format"):  # of Pillow
            decode_stored(content, "picture")
    else:
        check(tmp_path, content, gray)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_color_of_16_bits(tmp_path, byteorder, compression):
    check(tmp_path, tiff(RGB16, photometric="rgb", byteorder=byteorder, compression=compression), RGB16)


def test_a_fourth_channel_that_is_no_alpha(tmp_path):
    for dtype in (np.uint8, np.uint16):
        rgb = RGB16 if dtype == np.uint16 else (RGB16 // 257).astype(np.uint8)
        content = tiff(np.dstack([rgb, rgb[..., 0] // 50]), photometric="rgb", extrasamples=["unspecified"])
        assert check(tmp_path, content, rgb).notes == ("a fourth channel that is not alpha was dropped",)


def test_colors_that_are_multiplied_by_alpha(tmp_path):
    alpha = np.full_like(RAMP, 32767)
    alpha[0] = 0
    stored = np.rint(RGB16 * (alpha[..., None] / 65535)).astype(np.uint16)
    content = tiff(np.dstack([stored, alpha]), photometric="rgb", extrasamples=["assocalpha"])
    expected = RGB16.copy()
    expected[0] = 0
    check(tmp_path, content, expected, alpha, atol=1)
    check(tmp_path, tiff(np.dstack([RGB16, alpha]), photometric="rgb", extrasamples=["unassalpha"]), RGB16, alpha)


def test_one_color_that_is_transparent(tmp_path):
    value = int(RAMP[3, 4])
    alpha = np.where(value == RAMP, 0, 65535).astype(np.uint16)
    check(tmp_path, by_pillow(Image.fromarray(RAMP), "PNG", transparency=value), RAMP, alpha)
    content = by_opencv(RGB16[..., ::-1], ".png")
    color = RGB16[3, 4]
    data = b"tRNS" + color.astype(">u2").tobytes()
    chunk = struct.pack(">I", 6) + data + struct.pack(">I", zlib.crc32(data))
    alpha = np.where((color == RGB16).all(2), 0, 65535).astype(np.uint16)
    check(tmp_path, content[:33] + chunk + content[33:], RGB16, alpha)


@pytest.mark.parametrize("most", [65535, 1023, 300])
def test_ppm_of_more_than_8_bits(tmp_path, most):
    values = RGB16 // (65536 // (most + 1) or 1) if most < 65535 else RGB16
    values = np.minimum(values, most)
    expected = np.rint(values * (65535 / most)).astype(np.uint16)
    check(tmp_path, ppm(values, most=most), expected, atol=0 if most == 65535 else 1)
    check(tmp_path, ppm(values[..., 0], b"P5", most), expected[..., 0], atol=0 if most == 65535 else 1)


def test_what_would_lose_precision_is_refused():
    content = by_opencv(RGB16[..., ::-1], ".jp2")
    with pytest.raises(BadImageError, match=r"deep\.jp2: .*more than 8 bits per channel in an unsupported form"):
        decode_stored(content, "deep.jp2")
    cmyk = tiff(np.dstack([RGB16, RAMP]), photometric="separated")
    with pytest.raises(BadImageError, match="not a readable image"):
        decode_stored(cmyk, "cmyk.tif")
    for dtype in (np.uint32, np.int32, np.float32, np.int16):
        with pytest.raises(BadImageError, match="not a readable image"):
            decode_stored(tiff(RAMP.astype(dtype)), "deep.tif")


def test_programs_are_not_run(monkeypatch):
    """EPS is a program, which Pillow would give to Ghostscript."""
    monkeypatch.setattr("subprocess.Popen", lambda *command, **options: pytest.fail(f"runs {command}"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n%%EndComments\n(x) (w) file\n%%EOF\n"
    with pytest.raises(BadImageError, match=r"photo\.png: not a readable image: unknown image format"):
        decode_stored(eps, "photo.png")


def test_the_resolution_is_read(tmp_path):
    image = Image.fromarray((RGB16 // 257).astype(np.uint8))
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        across, down = decode_stored(by_pillow(image, kind, dpi=(300, 150)), "x").dpi
        assert (across, down) == pytest.approx((300, 150), abs=0.02)
    assert decode_stored(by_pillow(image, "PNG"), "x").dpi is None


def test_what_is_an_image_in_a_folder(tmp_path):
    for name in ("b.png", "a.JPG", "._b.png", ".hidden.png", "notes.txt", "deep/c.tif", ".deep/d.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]
    assert [path.name for path in list_images(tmp_path, recursive=True)] == ["a.JPG", "b.png", "c.tif"]
    assert list_images(tmp_path / "none") == []
