"""The networks that come with the package."""

import numpy as np
import pytest
import torch
from skimage import data

from panet_plugin.archs import PANet
from panet_plugin.degradations import imresize
from panet_plugin.inference import Restorer
from panet_plugin.inference.color import BT601
from panet_plugin.metrics import quantize
from panet_plugin.tasks import make_task
from panet_plugin.weights import CheckpointError, bundle, bundled, list_bundled, load_official, write_checkpoint

FILES = sorted(bundle.BUNDLE.glob("*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_loads_is_small_and_says_its_task(path):
    assert path.suffix == ".safetensors"
    assert path.stat().st_size < 4_000_000
    task = list_bundled()[path]
    assert bundled(**{"task" if key == "name" else key: value for key, value in task.describe().items()}) == path
    network = load_official(path)
    channels = network.arguments["in_channels"]
    assert task.channels == channels
    with torch.inference_mode():
        restored = network(torch.full((1, channels, 6, 8), 0.5))
    assert restored.shape == (1, channels, 6 * task.scale, 8 * task.scale)
    assert restored.isfinite().all()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_improves_photographs_with_all_values(path):
    """Black, white and saturated colors too, which training data may lack."""
    task, photograph = list_bundled()[path], data.astronaut()[160:256, 100:220]
    level = {task.strength: {"sigma": 25, "quality": 40}[task.strength]} if task.strength else {}
    task = make_task(**{**task.describe(), **level})
    restorer = Restorer(load_official(path))
    for image in (photograph, 255 - photograph):
        # Gray of the full range: the task's own luma of a color image ends at 16 and 235.
        reference = image if task.channels == 3 else np.rint(image @ BT601).astype(np.uint8)
        reference = task.reference(reference)
        degraded = task.degrade_image(reference, "astronaut")
        restored = np.atleast_3d(restorer.restore(degraded[..., 0] if task.channels == 1 else degraded))
        simple = degraded if task.scale == 1 else quantize(imresize(degraded.astype(np.float64), task.scale))
        assert task.protocol.psnr(restored, reference, task.scale) > task.protocol.psnr(simple, reference, task.scale)
        assert np.abs(restored.astype(int) - reference).mean(2).max() < 160


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "BUNDLE", tmp_path)
    return tmp_path


def test_a_file_is_found_by_its_task(folder):
    for name, task in (("dn30", make_task("denoising", sigma=30)), ("car10", make_task("artifact_reduction"))):
        write_checkpoint(PANet(task.channels, 4, 1), folder / f"{name}.safetensors", task)
    assert bundled("denoising") == bundled("denoising", sigma=30.0, gray=False) == folder / "dn30.safetensors"
    assert bundled("artifact_reduction", quality=10) == folder / "car10.safetensors"
    message = r"no bundled model for denoising sigma=50; .*available: artifact_reduction quality=10.*denoising sigma=30"
    with pytest.raises(CheckpointError, match=message):
        bundled("denoising", sigma=50)
    with pytest.raises(CheckpointError, match="no bundled model for demosaicing"):
        bundled("demosaicing")
    write_checkpoint(PANet(1, 4, 1), folder / "silent.safetensors")
    with pytest.raises(CheckpointError, match=r"silent\.safetensors: .*a bundled file without a task"):
        list_bundled()


def test_a_network_for_a_range_is_one_for_its_levels(folder):
    tasks = {
        "a_gray": make_task("denoising", sigma=(0, 60), gray=True),
        "blind": make_task("denoising", sigma=(0, 60)),
        "single": make_task("denoising", sigma=30),
        "car": make_task("artifact_reduction", quality=(5, 40)),
    }
    for name, task in tasks.items():
        write_checkpoint(PANet(task.channels, 4, 1), folder / f"{name}.safetensors", task)
    for parameters, name in (
        ({"sigma": 30}, "single"),
        ({"sigma": 31.5}, "blind"),
        ({"sigma": (10, 20)}, "blind"),
        ({"gray": True}, "a_gray"),
        ({"gray": True, "sigma": 60}, "a_gray"),
        ({}, "blind"),  # the default, 50, in color
    ):
        assert bundled("denoising", **parameters) == folder / f"{name}.safetensors"
    assert bundled("artifact_reduction") == bundled("artifact_reduction", quality=5) == folder / "car.safetensors"
    with pytest.raises(CheckpointError, match=r"no bundled model for denoising sigma=61.*sigma=\(0, 60\)"):
        bundled("denoising", sigma=61)
    with pytest.raises(CheckpointError, match="no bundled model for artifact_reduction quality=10 luma_only=False"):
        bundled("artifact_reduction", quality=10, luma_only=False)
    with pytest.raises(ValueError, match="denoising has the parameters sigma, gray, got quality"):
        bundled("denoising", quality=3)


def test_a_network_is_found_by_the_level_and_the_channels_of_an_image(folder):
    tasks = {
        "blind": make_task("artifact_reduction", quality=(20, 80)),
        "q10": make_task("artifact_reduction", quality=10),
        "q30": make_task("artifact_reduction", quality=30),
        "color": make_task("artifact_reduction", quality=(25, 60), luma_only=False),
        "a_x3": make_task("super_resolution", scale=3),
        "x2": make_task("super_resolution", scale=2),
    }
    for name, task in tasks.items():
        write_checkpoint(PANet(task.channels, 4, 1), folder / f"{name}.safetensors", task)
    for level, channels, name in (
        (10, 3, "q10"),
        (3, 1, "q10"),
        (14, 1, "q10"),
        (16, 1, "blind"),  # nearer to 20 than to 10
        (22, 3, "blind"),
        (30, 1, "q30"),
        (31, 1, "blind"),
        (31, None, "blind"),
        (30, 3, "color"),
        (90, 3, "blind"),
        (None, 1, "blind"),
        (None, 3, "color"),
    ):
        assert bundled("artifact_reduction", level=level, channels=channels) == folder / f"{name}.safetensors"
    assert bundled("artifact_reduction", level=30, channels=3, luma_only=True) == folder / "q30.safetensors"
    assert bundled("artifact_reduction", channels=3, quality=10) == folder / "q10.safetensors"
    assert bundled("super_resolution", channels=3) == folder / "x2.safetensors"


def test_nothing_is_there(folder):
    with pytest.raises(CheckpointError, match="no bundled model for denoising; available: nothing"):
        bundled("denoising")
