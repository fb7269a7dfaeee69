"""What image files tell about the level of their degradation."""

import warnings

import numpy as np
import pytest
from PIL import Image

from panet_plugin.data import BadImageError
from panet_plugin.degradations import add_gaussian_noise
from panet_plugin.inference import Level, read_channels, read_level
from panet_plugin.tasks import make_task

PICTURE = np.random.default_rng(0).integers(0, 256, (19, 21, 3), dtype=np.uint8)
JPEG, NOISE = make_task("artifact_reduction"), make_task("denoising")
TABLES = "from its quantization tables"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "image"


@pytest.mark.parametrize("quality", [1, 10, 95, 100])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_quality(path, quality, mode):
    Image.fromarray(PICTURE).convert(mode).save(path, "JPEG", quality=quality)
    assert read_level(path, JPEG) == Level(quality, TABLES)
    # Of the first image that cameras write.
    Image.fromarray(PICTURE).save(path, "MPO", save_all=True, append_images=[Image.fromarray(PICTURE)], quality=quality)
    assert read_level(path, JPEG) == Level(quality, TABLES)


def test_quality_by_the_table_of_the_luma(path):
    """Here the tables' names are exchanged: it is 1, and that of the chroma 0."""
    Image.fromarray(PICTURE).save(path, "JPEG", quality=30)
    content = bytearray(path.read_bytes())
    for name, start in enumerate(index for index in range(len(content)) if content[index : index + 2] == b"\xff\xdb"):
        assert content[start + 4] == name
        content[start + 4] = 1 - name
    components = content.index(b"\xff\xc0") + 10
    for place in (components + 2, components + 5, components + 8):
        content[place] = 1 - content[place]
    path.write_bytes(content)
    assert read_level(path, JPEG) == Level(30, TABLES)


def test_quality_of_other_encoders_and_formats(path):
    tables = [[16] * 64, [20] * 64]
    Image.fromarray(PICTURE).save(path, "JPEG", qtables=tables)
    assert read_level(path, JPEG) == Level(85, "the closest to its quantization tables")
    for kind in ("PNG", "WEBP"):
        Image.fromarray(PICTURE).save(path, kind, quality=30)
        assert read_level(path, JPEG) == Level(None, f"no quantization tables in a {kind} file")
    Image.fromarray(PICTURE).save(path, "JPEG", streamtype=2)
    assert read_level(path, JPEG) == Level(None, "its quantization tables are missing")


def noisy(sigma, shape=(96, 96, 3), middle=128):
    return add_gaussian_noise(np.full(shape, middle, np.uint8), sigma, 0)


@pytest.mark.parametrize("sigma", [5, 15, 30])
def test_sigma_is_about_that_of_the_noise(path, sigma):
    Image.fromarray(noisy(sigma)).save(path, "PNG")
    value, how, exact = read_level(path, NOISE)
    assert value == pytest.approx(sigma, abs=1.5)
    assert (how, exact) == ("estimated from its pixels", False)
    # Averaged by the weights of the luma: the root of the sum of their squares is 0.67.
    assert read_level(path, make_task("denoising", gray=True)).value == pytest.approx(0.67 * sigma, abs=1.5)
    for image in (noisy(sigma, (96, 96)), noisy(sigma, (96, 96)).astype(np.uint16) * 257):
        Image.fromarray(image).save(path, "PNG")
        for task in (NOISE, make_task("denoising", gray=True)):
            assert read_level(path, task).value == pytest.approx(sigma, abs=1.5)


@pytest.mark.parametrize("shape", [(40, 40, 3), (40, 40), (1, 1, 3), (3, 50, 3), (50, 2)])
def test_where_there_is_no_noise(path, shape):
    for middle in (0, 128):
        Image.fromarray(noisy(0, shape, middle)).save(path, "PNG")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            level = read_level(path, NOISE)
        assert level == Level(0, "estimated from its pixels, which have hardly any noise", exact=False)


def test_channels(path):
    gray, mosaic = PICTURE[..., 0], PICTURE.copy()
    for mode, channels in (("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)):
        Image.fromarray(mosaic).convert(mode).save(path, "PNG")
        assert read_channels(path) == channels
    Image.fromarray(gray.astype(np.uint16)).save(path, "PNG")
    assert read_channels(path) == 1
    Image.fromarray(mosaic).convert("CMYK").save(path, "TIFF")
    assert read_channels(path) == 3


def test_damaged_files(path):
    path.write_bytes(b"no image")
    for task in (JPEG, NOISE):
        with pytest.raises(BadImageError, match="image: not a readable image"):
            read_level(path, task)
    with pytest.raises(BadImageError, match="image: not a readable image"):
        read_channels(path)
    with pytest.raises(FileNotFoundError):
        read_channels(path.with_name("none"))
