"""From file to file."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from torch import nn

from panet_plugin.data import read_image, write_image
from panet_plugin.data.image_reader import StoredImage, read_head, read_stored
from panet_plugin.data.image_writer import encode_stored
from panet_plugin.degradations import imresize
from panet_plugin.inference import Restorer, find_jobs, restore_files
from panet_plugin.inference.cost import Cost
from panet_plugin.inference.jobs import Job
from panet_plugin.memory import high_water_mark, reset_high_water_mark
from panet_plugin.tasks import make_task


class Halve(nn.Module):
    """Halves RGB images, enlarges them, and notes their sizes."""

    def __init__(self, scale=1, fails=lambda x: False):
        super().__init__()
        self.scale, self.fails, self.seen = scale, fails, []

    def forward(self, x):
        if x.shape[1] != 3:
            raise RuntimeError("3 channels")
        self.seen.append(tuple(x.shape))
        if self.fails(x):
            raise torch.OutOfMemoryError("out of memory: tried to allocate a lot")
        return x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2) / 2


def make(network, **options):
    """Return a restorer of known cost, and forget what it saw until then."""
    restorer = Restorer(network, **{"mode": "auto", "max_memory": 1e9, **options})
    restorer.cost = Cost((1e-6, 1e-9), (100, 0))
    assert restorer.channels == 3
    network.seen.clear()
    return restorer


def picture(seed, height=6, width=8, channels=3, dtype=np.uint8):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def assert_halved(path, image):
    # Halves of odd numbers are rounded in float32.
    assert np.abs(read_image(path).astype(int) - image.astype(int) / 2).max() <= 0.51


def test_images_of_one_size_are_restored_together(tmp_path):
    images = {f"{index}.png": picture(index, width=8 if index % 2 else 9) for index in range(5)}
    for name, image in images.items():
        write_image(tmp_path / "in" / name, image)
    network, lines = Halve(), []
    jobs, _ = find_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert restore_files(make(network, batch=2), jobs, report=lines.append) == []
    assert network.seen == [(2, 3, 6, 9), (1, 3, 6, 9), (2, 3, 6, 8)]
    for name, image in images.items():
        assert_halved(tmp_path / "out" / name, image)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(images)
    assert [line.split(", ")[0] for line in lines] == ["3 images of 9x6: whole", "2 images of 8x6: whole"]
    assert "about" in lines[0]


def test_what_goes_wrong_does_not_stop_the_rest(tmp_path):
    """One image is empty, one is cut off, one is too large for the memory, one is of 32 bits."""
    folder = tmp_path / "in"
    for name in ("a", "d", "z"):
        write_image(folder / f"{name}.png", picture(0))
    write_image(folder / "b.png", np.full((6, 8, 3), 255, np.uint8))
    content = (folder / "a.png").read_bytes()
    (folder / "c.png").write_bytes(content[:-30])
    (folder / "e.png").write_bytes(b"")
    (folder / "f.txt.tif").write_bytes(b"text")
    network = Halve(fails=lambda x: bool((x[:, :, 0, 0] == 1).all(1).any()))
    jobs, _ = find_jobs([str(folder)], tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/d.png").mkdir()  # cannot be written
    failures = restore_files(make(network), jobs, report=lambda line: None)
    reasons = {name.rsplit("/", 1)[1]: reason for name, reason in failures}
    assert sorted(reasons) == ["b.png", "c.png", "d.png", "e.png", "f.txt.tif"]
    assert reasons["b.png"].startswith("out of memory; try --max-memory or a smaller --tile")
    assert "truncated" in reasons["c.png"]
    assert "the file is empty" in reasons["e.png"]
    assert "unknown image format" in reasons["f.txt.tif"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "d.png", "z.png"]
    assert_halved(tmp_path / "out/z.png", picture(0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_is_enlarged_along_and_metadata_stays(tmp_path, dtype):
    pixels, alpha = picture(0, dtype=dtype), picture(1, channels=1, dtype=dtype)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with (tmp_path / "in.png").open("wb") as stream:
        encode_stored(StoredImage(pixels, alpha, icc=profile), ".png", stream)
    lines = []
    jobs = [Job(tmp_path / "in.png", tmp_path / "out" / name) for name in ("a.png", "a.jpg")]
    assert restore_files(make(Halve(2)), jobs, report=lines.append) == []
    found = read_stored(tmp_path / "out/a.png")
    assert found.pixels.dtype == dtype
    assert found.icc == profile
    assert np.abs(found.pixels.astype(int) - pixels.repeat(2, 0).repeat(2, 1) / 2).max() <= 0.51
    np.testing.assert_array_equal(found.alpha, imresize(alpha, 2))
    assert read_stored(tmp_path / "out/a.jpg").pixels.shape == (12, 16, 3)
    assert "note: JPEG does not support alpha: it was dropped" in lines


def test_gray_images_and_mosaics(tmp_path):
    gray = picture(0, channels=1)
    write_image(tmp_path / "gray.png", gray)
    jobs, _ = find_jobs([str(tmp_path / "gray.png")], tmp_path / "out")
    restorer = make(Halve())
    assert "set --task demosaicing" in restore_files(restorer, jobs, report=lambda line: None)[0].reason
    assert restore_files(restorer, jobs, make_task("denoising"), report=lambda line: None) == []
    assert read_stored(tmp_path / "out/gray.png").pixels.ndim == 2
    assert restore_files(restorer, jobs, make_task("demosaicing"), report=lambda line: None) == []
    mosaic = read_stored(tmp_path / "out/gray.png").pixels
    assert mosaic.shape == (6, 8, 3)
    assert np.abs(mosaic[0, 0].astype(int) - [0, gray[0, 0] / 2, 0]).max() <= 0.51


def test_large_images_are_restored_in_tiles(tmp_path):
    write_image(tmp_path / "large.png", picture(0, 60, 90))
    network, lines = Halve(), []
    restorer = make(network, max_seconds=0, tile=40, overlap=4)
    restorer.cost = Cost((0, 1e-9), (100, 0))
    jobs = [Job(tmp_path / "large.png", tmp_path / "out.png")]
    assert restore_files(restorer, jobs, report=lines.append, progress=True) == []
    assert {shape[-2:] for shape in network.seen} == {(40, 40)}
    assert_halved(tmp_path / "out.png", picture(0, 60, 90))
    assert "90x60: 6 tiles of up to 40x40" in lines[0]


def test_a_result_that_is_too_large_for_its_format_is_told_before_any_work(tmp_path):
    write_image(tmp_path / "in/wide.png", picture(0, 2, 9000))
    write_image(tmp_path / "in/small.png", picture(0))
    network = Halve(scale=2)
    restorer = make(network)
    jobs, _ = find_jobs([str(tmp_path / "in")], tmp_path / "out", ".webp")
    ((name, reason),) = restore_files(restorer, jobs, report=lambda line: None)
    assert name.endswith("wide.png")
    assert reason == "the result would have 18000x4 pixels, expected at most 16383 per side for WEBP"
    assert network.seen == [(1, 3, 6, 8)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.webp"]


def test_a_image_of_more_pixels_than_pillow_allows(tmp_path, monkeypatch):
    write_image(tmp_path / "large.png", picture(0, 40, 50))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 999)
    job = [Job(tmp_path / "large.png", tmp_path / "out.png")]
    ((_, reason),) = restore_files(make(Halve()), job, report=lambda line: None)
    assert "more than 1998 pixels" in reason and reason.endswith("; --max-pixels allows more")
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(match="exceeds limit of 1000 pixels"):
        assert restore_files(make(Halve()), job, report=lambda line: None) == []


def refused(restorer, job):
    """Return what the image is said to take at least, since the restorer's limit does not allow it."""
    ((name, reason),) = restore_files(restorer, [job], make_task("denoising"), report=lambda line: None)
    assert name == str(job.source)
    found = re.fullmatch(r"it requires at least (\d+)M of memory, the limit is 1M \(--max-memory\)", reason)
    assert not job.target.exists()
    return int(found[1]) * 1e6


def resident():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the mark can be reset on Linux alone")
@pytest.mark.parametrize(
    ("source", "target", "options", "scale"),
    [
        ("rgb.png", "out.png", {}, 1),
        ("rgb.png", "out.png", {}, 2),
        ("rgb.png", "out.png", {"ensemble": True}, 1),
        ("turned.jpg", "out.jpg", {}, 1),
        ("gray.tif", "out.webp", {}, 1),
        ("deep.tif", "out.png", {}, 1),
        ("deep.tif", "out.tif", {}, 1),
        ("alpha.webp", "out.png", {}, 2),
    ],
)
def test_the_limit_is_kept_by_what_is_said_to_be_enough(pictures, tmp_path, source, target, options, scale):
    job = Job(pictures / source, tmp_path / target)
    least = refused(make(Halve(scale), max_memory=1e6, **options), job)
    restorer = make(Halve(scale), max_memory=least, **options)
    reset_high_water_mark()
    before = resident()
    assert restore_files(restorer, [job], make_task("denoising"), report=lambda line: None) == []
    assert high_water_mark() - before <= least
    assert read_head(job.target).height == 1500 * scale


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder of large images: noise, so that files are large, but what is compressed for long."""
    folder = tmp_path_factory.mktemp("pictures")
    deep, alpha = picture(0, 1500, 1500, dtype=np.uint16), picture(1, 1500, 1500, 1, np.uint16)
    write(folder / "deep.tif", StoredImage(deep, alpha))
    pixels, alpha = ((layers >> 8).astype(np.uint8) for layers in (deep, alpha))
    write(folder / "rgb.png", StoredImage(pixels))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(folder / "turned.jpg", exif=exif, progressive=True)
    pixels, alpha = (layers[:75, :75].repeat(20, 0).repeat(20, 1) for layers in (pixels, alpha))
    write(folder / "gray.tif", StoredImage(alpha))
    write(folder / "alpha.webp", StoredImage(pixels, alpha))
    return folder


def write(path, content):
    with path.open("wb") as stream:
        encode_stored(content, path.suffix, stream)


def test_the_limit_fails_the_image_that_exceeds_it_alone(pictures, tmp_path):
    write_image(tmp_path / "small.png", picture(0))
    network = Halve()
    jobs = [Job(path, tmp_path / "out" / path.name) for path in (pictures / "rgb.png", tmp_path / "small.png")]
    (failure,) = restore_files(make(network, max_memory=40e6), jobs, report=lambda line: None)
    assert failure.name.endswith("rgb.png") and "the limit is 40M" in failure.reason
    assert network.seen == [(1, 3, 6, 8)]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.png"]


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("options", [{"mode": "whole"}, {"mode": "tiles", "tile": 40, "overlap": 0}])
def test_bands_of_an_image_give_what_it_gives_at_once(tmp_path, monkeypatch, options, scale):
    """Alpha and chroma are enlarged, and of a tile as of the whole."""
    pixels, alpha = picture(0, 61, 50), picture(1, 61, 50, 1)
    write(tmp_path / "in.png", StoredImage(pixels, alpha))
    jobs = [Job(tmp_path / "in.png", tmp_path / name) for name in ("at_once.png", "banded.png")]
    network = Gray(scale)
    assert restore_files(Restorer(network, **options), jobs[:1], report=lambda line: None) == []
    monkeypatch.setattr("panet_plugin.pixels.BAND", 300)
    assert restore_files(Restorer(network, **options), jobs[1:], report=lambda line: None) == []
    at_once, banded = (read_stored(job.target) for job in jobs)
    np.testing.assert_array_equal(at_once.alpha, imresize(alpha, scale))
    np.testing.assert_array_equal(banded.alpha, at_once.alpha)
    assert np.abs(banded.pixels.astype(int) - at_once.pixels).max() <= 1  # rounding errors of float32
    assert np.abs(at_once.pixels.astype(int) - imresize(pixels, scale)).mean() < 40


class Gray(nn.Module):
    """Takes gray images alone, and enlarges them."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        if x.shape[1] != 1:
            raise RuntimeError("1 channel")
        return x.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)
