import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from skimage import data

from panet_plugin import tasks
from panet_plugin.data import write_image
from panet_plugin.degradations import compress_jpeg, imresize, mosaic_bayer
from panet_plugin.evaluation import EvaluationError, PublishedScore, paper_check
from panet_plugin.evaluation.paper_check import bm3d_check, paper_checks, report_checks
from panet_plugin.pixels import luma

BENCHMARKS = Path("data/benchmarks")


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """Return a folder of tiny sets in the place of the benchmarks, for which today's scores were published."""
    picture = data.astronaut()[:64, 180:240]
    for name, pixels in (("classic5", luma(picture)), ("McMaster18", picture), ("Set5", picture), ("CBSD68", picture)):
        write_image(tmp_path / name / "HR" / "astronaut.png", pixels)
    for scale in (2, 3, 4):
        reference = picture[: 64 - 64 % scale]
        write_image(tmp_path / f"Set5/LR_bicubic/X{scale}/astronautx{scale}.png", imresize(reference, 1 / scale))
    for needed in (paper_check.NEEDED, paper_check.NEEDED_BM3D):
        for name in needed:
            monkeypatch.setitem(needed, name, 1)
    published = {}

    def first(task, dataset):
        return {name: PublishedScore(0.0, 0.0) for name in ("JPEG", "Mosaiced", "bicubic")}

    monkeypatch.setattr(paper_check, "published_scores", first)
    for check in paper_checks(tmp_path):
        title, metric = check.what.rsplit(" ", 1)
        published.setdefault(title, {})[metric.lower()] = float(check.measured)

    def second(task, dataset):
        words = " ".join(filter(None, (task.title, task.level, dataset)))
        return {
            title.split()[-1]: PublishedScore(**scores)
            for title, scores in published.items()
            if title.startswith(words)
        }

    published = {title: scores for title, scores in published.items() if "psnr" in scores}
    monkeypatch.setattr(paper_check, "published_scores", second)
    return tmp_path


def one_pixel_off(image, scale):
    low = imresize(image, scale)
    low[-1, -1, -1] ^= 1
    return low


def failed(root):
    return {check.what for check in paper_checks(root) if not check.passed}


def test_right_degradations_pass(benchmarks):
    checks = list(paper_checks(benchmarks))
    assert len(checks) == 8 + 2 + 6 + 3
    assert all(check.passed for check in checks)


@pytest.mark.parametrize(
    ("task", "name", "wrong", "what", "failures"),
    [
        (
            *("artifact_reduction", "compress_jpeg"),
            lambda image, quality, *luma_only: compress_jpeg(image, quality + 1, *luma_only),
            *("JPEG", 8),
        ),
        ("demosaicing", "mosaic_bayer", lambda image, pattern: mosaic_bayer(image, "RGGB"), "Demosaicing", 2),
        (
            *("super_resolution", "imresize"),
            lambda image, scale: imresize(image, scale, antialias=False),
            *("Super-resolution", 9),
        ),
        ("super_resolution", "imresize", one_pixel_off, "low-resolution", 3),
    ],
    ids=["quality", "pattern", "no antialiasing", "one pixel"],
)
def test_wrong_degradations_fail(benchmarks, monkeypatch, task, name, wrong, what, failures):
    monkeypatch.setattr(f"panet_plugin.tasks.{task}.{name}", wrong)
    found = failed(benchmarks)
    assert len(found) == failures
    assert all(what in check for check in found)


def test_another_ssim_fails(benchmarks, monkeypatch):
    protocol = replace(tasks.ArtifactReduction.protocol, ssim_window="gaussian")
    monkeypatch.setattr(tasks.ArtifactReduction, "protocol", protocol)
    assert failed(benchmarks) == {f"JPEG artifact reduction q{q} classic5 JPEG SSIM" for q in (10, 20, 30, 40)}


def test_missing_images(benchmarks):
    (benchmarks / "McMaster18/HR/astronaut.png").unlink()
    with pytest.raises(EvaluationError, match=r"McMaster18/HR: 1 images \*.png, found 0\nTo make SET/HR"):
        next(paper_checks(benchmarks))


def test_bm3d(benchmarks, monkeypatch):
    """With a stand-in for the package, which is given the image with unrounded noise of sigma 50."""

    class Pool:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, function, *args):
            future = Future()
            future.set_result(function(*args))
            return future

    def bm3d_rgb(noisy, sigma):
        assert sigma == 50 / 255
        noise = noisy - data.astronaut()[:64, 180:240] / 255
        assert noise.std() == pytest.approx(50 / 255, rel=0.02)
        assert noisy.min() < 0 and noisy.max() > 1
        return noisy

    fake = ModuleType("bm3d")
    fake.bm3d_rgb = bm3d_rgb
    monkeypatch.setitem(sys.modules, "bm3d", fake)
    monkeypatch.setattr(paper_check, "version", lambda package: "1")
    monkeypatch.setattr(paper_check, "ProcessPoolExecutor", Pool)
    # What is left of noise of sigma 50 after rounding: within 0.15 dB of the first figure alone.
    for psnr, passed in ((14.75, True), (14.55, False)):
        monkeypatch.setattr(
            paper_check, "published_scores", lambda task, dataset, psnr=psnr: {"CBM3D": PublishedScore(psnr, None)}
        )
        (check,) = bm3d_check(benchmarks)
        assert check.passed == passed, check
        assert check.what == "Denoising s50 CBSD68 CBM3D PSNR"


def test_without_bm3d(benchmarks, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(ImportError, match="pip install bm3d"):
        next(bm3d_check(benchmarks))


def test_the_page_tells_what_agrees(benchmarks):
    check = next(paper_checks(benchmarks))
    page = report_checks([check, replace(check, passed=False)])
    assert page.count(f"| {check.what} | {check.published} | {check.measured} | none | yes |") == 1
    assert page.count("| **no** |") == 1


@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the benchmark images are not there")
def test_the_published_figures():
    assert failed(BENCHMARKS) == set()
