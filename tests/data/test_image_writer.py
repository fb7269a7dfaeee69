"""Every format, with what belongs to an image."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from panet_plugin.data.image_reader import UPRIGHT, BadImageError, StoredImage, read_head, read_stored
from panet_plugin.data.image_writer import FORMATS, encode_stored

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY_ICC = ICC[:16] + b"GRAY" + ICC[20:]


def encode(picture, suffix):
    stream = BytesIO()
    notes = encode_stored(picture, suffix, stream)
    return stream.getvalue(), notes


def exif_data(orientation=1):
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker"
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2020:02:03 04:05:06"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] = 1
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif.tobytes()


def layers(channels, dtype, seed=0):
    shape = (5, 7) if channels == 1 else (5, 7, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def read(content, tmp_path, suffix):
    (tmp_path / f"picture{suffix}").write_bytes(content)
    head, picture = read_head(tmp_path / f"picture{suffix}"), read_stored(tmp_path / f"picture{suffix}")
    assert head[:2] == picture.pixels.shape[:2] == (5, 7)
    assert (head.channels == 1, head.alpha) == (picture.pixels.ndim == 2, picture.alpha is not None)
    assert head.depth == picture.pixels.itemsize
    return picture


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip(suffix, channels, dtype, alpha, tmp_path):
    pixels, cover = layers(channels, dtype), layers(1, dtype, 1) if alpha else None
    icc = ICC if channels == 3 else GRAY_ICC
    content, notes = encode(StoredImage(pixels, cover, exif=exif_data(), icc=icc), suffix)
    found = read(content, tmp_path, suffix)
    kind = FORMATS[suffix]
    no_gray = channels == 1 and (kind == "WEBP" or (alpha and dtype == np.uint16 and kind in ("PNG", "TIFF")))
    lost = [
        *(["alpha"] if alpha and kind in ("JPEG", "BMP") else []),
        *(["they were rounded to 8"] if dtype == np.uint16 and kind in ("JPEG", "BMP", "WEBP") else []),
        *(["does not support EXIF data and ICC"] if kind == "BMP" else []),
        *(["profile is not for RGB"] if no_gray else []),
    ]
    assert [any(word in note for note in notes) for word in lost] == [True] * len(notes)
    kept = np.uint16 if dtype == np.uint16 and kind in ("PNG", "TIFF") else np.uint8
    expected, cover = (
        image if image is None or kept == dtype else np.rint(image / 257).astype(np.uint8) for image in (pixels, cover)
    )
    if no_gray:
        expected = np.stack([expected] * 3, axis=2)
    assert found.pixels.dtype == kept
    if kind == "JPEG":
        assert found.pixels.shape == expected.shape
        assert np.abs(found.pixels.astype(int) - expected).mean() < 12
    else:
        np.testing.assert_array_equal(found.pixels, expected)
    if alpha and "alpha" not in lost:
        np.testing.assert_array_equal(found.alpha, cover)
    else:
        assert found.alpha is None
    if kind == "BMP":
        assert (found.icc, found.exif) == (b"", b"")
        return
    assert found.icc == (b"" if no_gray else icc)
    exif = Image.Exif()
    exif.load(found.exif)
    assert exif[ExifTags.Base.Make] == "Maker"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.DateTimeOriginal] == "2020:02:03 04:05:06"
    assert details[ExifTags.Base.ExifImageWidth] == 7
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tif", np.uint8)])
def test_a_image_is_turned_upright_and_no_more_says_how(orientation, suffix, dtype, tmp_path):
    pixels = layers(3, np.uint8)
    stored = BytesIO()
    Image.fromarray(pixels).save(stored, FORMATS[suffix], exif=exif_data(orientation))
    (tmp_path / f"stored{suffix}").write_bytes(stored.getvalue())
    picture = read_stored(tmp_path / f"stored{suffix}")
    picture = replace(picture, pixels=picture.pixels.astype(dtype))
    upright = np.array(ImageOps.exif_transpose(Image.open(stored)))
    content, _ = encode(picture, suffix)
    (tmp_path / f"new{suffix}").write_bytes(content)
    found = read_stored(tmp_path / f"new{suffix}")
    np.testing.assert_array_equal(found.pixels, upright)
    assert found.orientation == 1
    with Image.open(BytesIO(content)) as file:
        assert file.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert file.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == upright.shape[1]


@pytest.mark.parametrize(
    ("image", "shape", "alpha"),
    [
        (Image.fromarray(layers(1, np.uint8)).convert("P"), (5, 7, 3), False),
        (Image.fromarray(layers(4, np.uint8)).quantize(8), (5, 7, 3), True),
        (Image.fromarray(layers(1, np.uint8)).convert("1"), (5, 7), False),
        (Image.fromarray(layers(2, np.uint8)), (5, 7), True),
    ],
    ids=["palette", "transparent palette", "black and white", "gray and alpha"],
)
def test_other_modes(image, shape, alpha, tmp_path):
    image.save(tmp_path / "picture.png")
    found = read_stored(tmp_path / "picture.png")
    assert found.pixels.shape == shape
    wanted = image.convert(("LA" if alpha else "L") if len(shape) == 2 else "RGBA" if alpha else "RGB")
    expected = np.array(wanted)
    np.testing.assert_array_equal(found.pixels, expected[..., :-1].squeeze() if alpha else expected)
    if alpha:
        np.testing.assert_array_equal(found.alpha, expected[..., -1])


def test_cmyk_loses_its_profile(tmp_path):
    Image.fromarray(layers(4, np.uint8), "CMYK").save(tmp_path / "cmyk.jpg", icc_profile=ICC[:16] + b"CMYK" + ICC[20:])
    picture = read_stored(tmp_path / "cmyk.jpg")
    assert picture.pixels.shape == (5, 7, 3)
    content, notes = encode(picture, ".png")
    assert notes == ["its ICC profile is not for RGB images: it was dropped"]
    assert Image.open(BytesIO(content)).info.get("icc_profile") is None


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_damaged_profile_costs_no_image(dtype, tmp_path):
    pixels = layers(3, dtype)
    content, notes = encode(StoredImage(pixels, icc=bytes(16) + b"RGB " + bytes(8)), ".png")
    np.testing.assert_array_equal(read(content, tmp_path, ".png").pixels, pixels)
    assert notes == (["its ICC profile is damaged: it was dropped"] if dtype == np.uint16 else [])


def test_several_images_in_a_file(tmp_path):
    pages = [Image.fromarray(layers(3, np.uint8, seed)) for seed in (0, 1)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    found = read_stored(tmp_path / "pages.tif")
    np.testing.assert_array_equal(found.pixels, pages[0])
    assert found.notes == ("only the first of 2 images in the file was read",)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_resolution_is_kept(suffix, dtype, orientation, tmp_path):
    content, notes = encode(StoredImage(layers(3, dtype), dpi=(300, 150), orientation=orientation), suffix)
    (tmp_path / f"picture{suffix}").write_bytes(content)
    found = read_stored(tmp_path / f"picture{suffix}").dpi
    if suffix == ".webp":
        assert found is None and "WEBP does not support a resolution: it was dropped" in notes
    else:
        assert found == pytest.approx((300, 150) if orientation == 1 else (150, 300), abs=0.02)


def test_exif_data_that_a_jpeg_cannot_hold():
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "x" * 70_000
    content, notes = encode(StoredImage(layers(3, np.uint8), exif=exif.tobytes()), ".jpg")
    assert notes == ["its EXIF data is too long for JPEG: it was dropped"]
    assert not Image.open(BytesIO(content)).getexif()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"", "the file is empty"),
        (lambda content: b"no image", "unknown image format"),
        (lambda content: content[:-40], "truncated"),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bad_files_are_named(spoil, message, dtype, tmp_path):
    content, _ = encode(StoredImage(layers(3, dtype)), ".png")
    (tmp_path / "bad.png").write_bytes(spoil(content))
    with pytest.raises(BadImageError, match=rf"bad\.png: not a readable image: .*{message}"):
        read_stored(tmp_path / "bad.png")


def test_32_bits_and_unknown_formats(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(BadImageError, match="32 bits per channel"):
        read_stored(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"cannot write \.gif: expected one of \.png"):
        encode(StoredImage(layers(3, np.uint8)), ".gif")
