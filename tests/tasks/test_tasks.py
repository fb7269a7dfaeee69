"""What the tasks say, and that they degrade alike wherever they run."""

import hashlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from panet_plugin import archs
from panet_plugin.degradations import add_gaussian_noise, compress_jpeg, imresize, mosaic_bayer
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.pixels import luma
from panet_plugin.tasks import TASKS, ArtifactReduction, Denoising, SuperResolution, image_rng, make_task

PICTURE = np.random.default_rng(0).integers(0, 256, (13, 11, 3), dtype=np.uint8)
SETTINGS = [make_task(name, **setting) for name, task in TASKS.items() for setting in task.settings or ({},)]


def test_the_tasks():
    assert list(TASKS) == ["super_resolution", "denoising", "demosaicing", "artifact_reduction", "deblurring"]
    assert [task.protocol.name for task in TASKS.values()] == ["sr_y", "dn_rgb", "dm_rgb", "car_y", "dn_rgb"]
    assert len(SETTINGS) == 3 + 8 + 1 + 4 + 1


@pytest.mark.parametrize("task", SETTINGS, ids=lambda task: f"{task.name}-{task.channels}-{task.level}")
def test_every_setting(task):
    reference = task.reference(PICTURE)
    degraded = task.degrade_image(reference, "name")
    assert reference.dtype == degraded.dtype == np.uint8
    assert reference.shape[2] == degraded.shape[2] == task.channels
    assert reference.shape[:2] == tuple(side * task.scale for side in degraded.shape[:2])
    assert task.protocol in PROTOCOLS.values()
    assert make_task(**task.describe()) == task
    network = dict(task.arch)
    assert hasattr(archs, network.pop("type"))
    # References of other kinds of files.
    assert task.reference(PICTURE[..., 0]).shape[2] == task.channels
    np.testing.assert_array_equal(task.reference(PICTURE.astype(np.uint16) * 257), reference)


def test_the_levels_of_a_strength():
    for task, strength, levels in (
        (make_task("denoising", sigma=(0, 75)), "sigma", (0, 75)),
        (make_task("denoising", sigma=15), "sigma", (15, 15)),
        (make_task("artifact_reduction", quality=(5, 95)), "quality", (5, 95)),
        (make_task("super_resolution"), "", (0, 0)),
    ):
        assert (task.strength, task.levels) == (strength, levels)


def test_degradations_are_the_published_ones():
    assert np.array_equal(
        make_task("super_resolution", scale=2).degrade(PICTURE[:12, :10]), imresize(PICTURE[:12, :10], 0.5)
    )
    assert np.array_equal(make_task("demosaicing").degrade(PICTURE), mosaic_bayer(PICTURE, "GRBG"))
    assert np.array_equal(ArtifactReduction(30).degrade(PICTURE), compress_jpeg(PICTURE, 30))
    assert ArtifactReduction(30, luma_only=False).degrade(PICTURE).shape == PICTURE.shape
    assert np.array_equal(Denoising(10).degrade(PICTURE, np.random.default_rng(3)), add_gaussian_noise(PICTURE, 10, 3))
    assert np.array_equal(Denoising(10, gray=True).reference(PICTURE), luma(PICTURE))


def test_a_gray_image_is_its_own_luma_however_it_was_stored():
    gray = PICTURE[..., :1]
    for stored in (gray, np.repeat(gray, 3, axis=2), np.repeat(gray.astype(np.uint16) * 257, 3, axis=2)):
        np.testing.assert_array_equal(ArtifactReduction(10).reference(stored), gray)


def test_noise_of_an_image_depends_on_its_name_and_the_seed():
    task = Denoising(50)
    noisy = task.degrade_image(PICTURE, "0801")
    np.testing.assert_array_equal(task.degrade_image(PICTURE, "elsewhere/0801.png"), noisy)
    assert not np.array_equal(task.degrade_image(PICTURE, "0802"), noisy)
    assert not np.array_equal(task.degrade_image(PICTURE, "0801", seed=1), noisy)


def test_noise_of_an_image_is_the_same_in_every_process_and_version():
    code = (
        "import hashlib, numpy as np; from panet_plugin.tasks import Denoising;"
        "image = np.full((8, 8, 3), 100, np.uint8);"
        "print(hashlib.sha256(Denoising(50).degrade_image(image, '0801').tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = Denoising(50).degrade_image(np.full((8, 8, 3), 100, np.uint8), "0801")
    assert done.stdout.strip() == hashlib.sha256(ours.tobytes()).hexdigest()
    # A change of these numbers changes every validation score: it must never go unnoticed.
    assert ours[0, 0].tolist() == [128, 99, 18]


def test_blind_levels():
    task = make_task("denoising", sigma=[0, 55])
    assert task == Denoising((0, 55))
    assert task.level == "s0-55"
    flat = np.full((64, 64, 1), 128, np.uint8)
    levels = [Denoising((0, 55), gray=True).degrade(flat, image_rng(str(i), 0)).std() for i in range(40)]
    assert min(levels) < 10 and max(levels) > 40


def test_blind_qualities():
    task = make_task("artifact_reduction", quality=[5, 7])
    assert task == ArtifactReduction((5, 7)) == make_task(**task.describe())
    assert task.level == "q5-7"
    singles = [compress_jpeg(PICTURE, quality).tobytes() for quality in (5, 6, 7)]
    found = {task.degrade(PICTURE, image_rng(str(i), 0)).tobytes() for i in range(40)}
    assert found == set(singles) and len(found) == 3
    assert np.array_equal(ArtifactReduction((6, 6)).degrade(PICTURE), compress_jpeg(PICTURE, 6))
    assert task.degrade(PICTURE).tobytes() in singles


def test_a_range_covers_its_levels_and_nothing_else_is_covered():
    blind = Denoising((10, 50))
    assert all(blind.covers(Denoising(sigma)) for sigma in (10, 33.3, 50, (10, 50), (20, 30)))
    assert not any(blind.covers(other) for other in (Denoising(9), Denoising((10, 51)), Denoising(30, gray=True)))
    assert not blind.covers(ArtifactReduction(20))
    assert Denoising(30).covers(Denoising(30.0)) and not Denoising(30).covers(blind)
    assert not SuperResolution(2).covers(SuperResolution(3))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("artifact_reduction", {"quality": (40, 10)}, r"quality must be one number or a range .*got \(40, 10\)"),
        ("artifact_reduction", {"quality": (1, 2, 3)}, "quality must be one number or a range"),
        ("artifact_reduction", {"quality": ()}, "quality must be one number or a range"),
        ("artifact_reduction", {"quality": (0, 10)}, "from 1 to 100, got 0"),
        ("dehazing", {}, "task must be one of super_resolution, denoising, demosaicing, artifact_reduction"),
        ("denoising", {"sigmas": 3}, "denoising has the parameters sigma, gray, got sigmas"),
        ("denoising", {"sigma": -1}, "sigma must be a finite number of at least 0"),
        ("artifact_reduction", {"quality": 0}, "quality must be a whole number from 1 to 100, got 0"),
        ("artifact_reduction", {"quality": 101}, "from 1 to 100, got 101"),
        ("super_resolution", {"scale": 0}, "scale must be a whole number of at least 1, got 0"),
        ("demosaicing", {"pattern": "RGB"}, "pattern must be one of GRBG"),
    ],
)
def test_wrong_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, **parameters)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((4, 4, 4), np.uint8), ValueError),
        (np.zeros((4, 4, 3), np.float32), TypeError),
        (np.zeros((0, 4, 3), np.uint8), ValueError),
    ],
)
def test_wrong_references(image, error):
    with pytest.raises(error, match="expected"):
        Denoising().reference(image)


def test_too_small_for_the_scale():
    with pytest.raises(ValueError, match="1x8 image is too small for x2"):
        SuperResolution(2).reference(np.zeros((1, 8), np.uint8))


def test_the_page_of_tasks_is_up_to_date():
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == set(TASKS) | set(PROTOCOLS)
    for name, task in TASKS.items():
        assert f"`{task.protocol.name}`" in rows[name]
        for field in fields(task):
            default = {True: "yes", False: "no"}[field.default] if field.type == "bool" else field.default
            assert f"`{field.name}` ({default})" in rows[name]
        assert all(make_task(name, **setting).level in rows[name] for setting in task.settings)
    for name, protocol in PROTOCOLS.items():
        assert ("luma" in rows[name]) == (protocol.channel == "y")
        assert ("8x8 uniform" in rows[name]) == (protocol.ssim_window == "uniform8")
        border = {(True, 0): "the scale", (True, 6): "the scale + 6", (False, 0): "none"}
        assert f"| {border[protocol.scaled_border, protocol.border]} |" in rows[name]
