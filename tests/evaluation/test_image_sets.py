import cv2
import numpy as np
import pytest
from evaluation_sets import PICTURES, make_set
from PIL import Image

from panet_plugin.data import BadImageError, write_image
from panet_plugin.evaluation import EvaluationError, ImageSet, Sample
from panet_plugin.evaluation.image_sets import image_size, read_as
from panet_plugin.pixels import luma
from panet_plugin.tasks import make_task

PICTURE = PICTURES["chelsea"]
GRAY, RGB = make_task("artifact_reduction"), make_task("denoising")


def test_the_layouts_of_a_set(tmp_path):
    make_set(tmp_path / "Tiny")
    (tmp_path / "Tiny/HR/notes.txt").write_text("no image")
    for folder in (tmp_path / "Tiny", tmp_path / "Tiny/HR"):
        images = ImageSet.open(folder)
        assert images.name == "Tiny"
        assert list(images.files) == ["chelsea", "coffee"]
    write_image(tmp_path / "Übung/größe.PNG", PICTURE)
    assert list(ImageSet.open(tmp_path / "Übung").files) == ["größe"]


def test_sets_without_images(tmp_path):
    with pytest.raises(EvaluationError, match="not a folder, or contains no images"):
        ImageSet.open(tmp_path)


def test_twins(tmp_path):
    for suffix in ("png", "bmp"):
        write_image(tmp_path / f"one.{suffix}", PICTURE)
    with pytest.raises(EvaluationError, match=r"(?s)differ only in their suffix:.*one\.bmp"):
        ImageSet.open(tmp_path)


def test_a_sample_is_degraded_by_its_name_and_seed(tmp_path):
    path = ImageSet.open(make_set(tmp_path / "Tiny")).files["chelsea"]
    sample = Sample("Tiny", path, RGB, seed=3)
    np.testing.assert_array_equal(sample.reference, PICTURE)
    np.testing.assert_array_equal(sample.degraded, RGB.degrade_image(PICTURE, "chelsea", 3))


def rgba(path):
    Image.fromarray(np.dstack([PICTURE, np.full(PICTURE.shape[:2], 7, np.uint8)])).save(path)


def sixteen_bits(path):
    write_image(path, PICTURE.astype(np.uint16) * 257)


def called_jpg(path):
    write_image(path.with_suffix(".png"), PICTURE)
    path.with_suffix(".png").rename(path)


@pytest.mark.parametrize(("name", "write"), [("a.png", rgba), ("a.png", sixteen_bits), ("a.jpg", called_jpg)])
def test_files_that_hold_the_same_image(tmp_path, name, write):
    write(tmp_path / name)
    np.testing.assert_array_equal(read_as(RGB, tmp_path / name), PICTURE)
    np.testing.assert_array_equal(read_as(GRAY, tmp_path / name), luma(PICTURE))


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_values_are_luma_already(tmp_path, channels):
    gray = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)[..., None]
    write_image(tmp_path / "gray.png", np.repeat(gray, channels, axis=2))
    np.testing.assert_array_equal(read_as(GRAY, tmp_path / "gray.png"), gray)
    np.testing.assert_array_equal(read_as(RGB, tmp_path / "gray.png"), np.repeat(gray, 3, axis=2))


def test_palettes_and_cmyk_are_read_as_rgb(tmp_path):
    Image.fromarray(PICTURE).quantize(16).save(tmp_path / "palette.png")
    Image.fromarray(PICTURE).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for path in tmp_path.iterdir():
        assert read_as(RGB, path).shape == PICTURE.shape


@pytest.mark.parametrize("content", [b"", b"not an image", "truncated"])
def test_bad_files_are_named(tmp_path, content):
    path = tmp_path / "bad.png"
    if content == "truncated":
        write_image(path, PICTURE)
        content = path.read_bytes()[:200]
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=r"bad\.png"):
        read_as(RGB, path)


def test_unfit_for_the_task(tmp_path):
    write_image(tmp_path / "line.png", PICTURE[:, :1])
    with pytest.raises(BadImageError, match=r"line\.png: a 32x1 image is too small for x2"):
        read_as(make_task("super_resolution"), tmp_path / "line.png")


def test_image_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(PICTURE).save(tmp_path / "plain.png")
    assert image_size(tmp_path / "plain.png") == (32, 28)
    assert image_size(tmp_path / "turned.jpg") == read_as(RGB, tmp_path / "turned.jpg").shape[:2] == (28, 32)
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(BadImageError, match=r"bad\.png"):
        image_size(tmp_path / "bad.png")
