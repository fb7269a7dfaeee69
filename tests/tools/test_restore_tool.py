"""tools/restore.py, as a user runs it."""

import io
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.data import read_image, write_image
from panet_plugin.degradations import add_gaussian_noise
from panet_plugin.inference import Restorer
from panet_plugin.inference.color import adapt
from panet_plugin.inference.cost import Cost
from panet_plugin.tasks import make_task
from panet_plugin.weights import bundle, load_official, write_checkpoint

COLOR = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def gray_network():
    torch.manual_seed(0)
    return PANet(1, 4, 1, attention={"levels": 2})


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    """Return a function that runs the script in this process in a folder with an image and a checkpoint."""
    script = str(Path("tools/restore.py").resolve())
    write_image(tmp_path / "photo.png", COLOR)
    write_checkpoint(gray_network(), tmp_path / "car20.safetensors", make_task("artifact_reduction", quality=20))
    monkeypatch.setattr(bundle, "BUNDLE", tmp_path)
    # It is measured where the tool runs as a process.
    monkeypatch.setattr(Restorer, "cost", Cost((1e-6, 0), (100, 0)))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=None):
        monkeypatch.setattr(sys, "argv", ["restore.py", *map(str, arguments)])
        try:
            runpy.run_path(script, run_name="__main__")
            found = None
        except SystemExit as stopped:
            found = stopped.code
        captured = capsys.readouterr()
        output = f"{captured.out}{captured.err}{found if isinstance(found, str) else ''}"
        assert (found is not None) == (code is not None), output
        return output

    return run


def luma_restored(picture, network):
    everything = slice(0, picture.shape[0]), slice(0, picture.shape[1])
    adapted = adapt(picture, 1)
    image = torch.from_numpy(adapted.read(*everything))
    restored = Restorer(network).restore_batch(image[None])[0].numpy()
    return np.rint(np.clip(adapted.back(restored, *everything), 0, 1) * 255).astype(np.uint8)


def test_out_of_the_box(tool):
    output = tool("photo.png", "--task", "artifact_reduction")
    np.testing.assert_array_equal(read_image("restored/photo.png"), luma_restored(COLOR, gray_network()))
    assert "PANet, JPEG artifact reduction q20; on " in output
    assert "photo.png of 40x30: whole, about " in output
    assert "luma (BT.601)" in output
    assert "no bundled model for artifact_reduction quality=10" in tool(
        "photo.png", "--task", "artifact_reduction", "--quality", "10", code=1
    )
    assert "no bundled model for denoising" in tool("photo.png", "--task", "denoising", code=1)


def test_the_whole_as_a_process(run_tool, tmp_path):
    """Two sizes, a list, another format, an image that is none."""
    torch.manual_seed(0)
    network = PAEDSR(2, mid_channels=8, num_blocks=1, attention={"levels": 2})
    write_checkpoint(network, tmp_path / "x2.pth")
    write_image(tmp_path / "in/a.png", COLOR)
    (tmp_path / "in/bad.png").write_bytes(b"")
    arguments = (
        "restore.py",
        tmp_path / "in",
        tmp_path / "none.png",
        "--weights",
        tmp_path / "x2.pth",
        "--device",
        "cpu",
    )
    output = run_tool(*arguments, "-o", tmp_path / "out", "--format", "webp", code=1)
    assert "PAEDSR, Super-resolution x2; on cpu in fp32" in output
    assert f"error: {tmp_path}/in/bad.png: not a readable image: the file is empty" in output
    assert f"error: {tmp_path}/none.png: no such file or folder" in output
    assert output.rstrip().endswith("2 of 3 failed")
    expected = Restorer(load_official(tmp_path / "x2.pth")).restore(COLOR)
    np.testing.assert_array_equal(read_image(tmp_path / "out/a.webp"), expected)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.webp"]


def test_the_ways(tool):
    weights = ("--weights", "car20.safetensors", "-o", "out.png", "--device", "cpu")
    assert "6 tiles of up to 20x20" in tool("photo.png", *weights, "--tile", "20", "--overlap", "4")
    assert "chopped into 4 pieces as by the original" in tool("photo.png", *weights, "--chop", "--self-ensemble")
    assert "in bf16" in tool("photo.png", *weights, "--whole", "--dtype", "bf16", "--max-memory", "1G", "--batch", "2")
    assert "1 skipped" in tool("photo.png", *weights, "--skip-existing")


def test_the_window_is_that_of_the_training_where_nothing_else_is_asked_for(tool, tmp_path):
    network = gray_network()
    network.trained_patch = 8
    write_checkpoint(network, tmp_path / "car20.safetensors", make_task("artifact_reduction", quality=20))
    weights = ("--weights", "car20.safetensors", "--device", "cpu")
    for options, window in (
        ((), 8),
        (("--window", "12"), 12),
        (("--whole", "--window", "9"), 9),
        (("--window", "none"), None),
        (("--whole",), None),
        (("--tile", "40"), None),
        (("--chop",), None),
    ):
        output = tool("photo.png", *weights, *options)
        assert (f"q20, attention in a window of {window}; on" if window else "q20; on") in output
    for text in ("0", "many", "-3"):
        assert "--window: expected a whole number above 0" in tool("photo.png", *weights, "--window", text, code=2)


def test_a_list(tool, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("photo.png\n"))
    tool("-", "--task", "artifact_reduction", "--device", "cpu", "-o", "new")
    assert read_image("new/photo.png").shape == COLOR.shape


def test_another_task_than_the_checkpoints_is_warned_of(tool):
    output = tool("photo.png", "--weights", "car20.safetensors", "--task", "artifact_reduction", "--quality", "30")
    assert "warning: car20.safetensors was trained for {'name': 'artifact_reduction', 'quality': 20" in output
    assert "JPEG artifact reduction q30" in output
    output = tool("photo.png", "--weights", "car20.safetensors", "--task", "artifact_reduction")
    assert "warning" not in output
    assert "JPEG artifact reduction q20" in output


def test_the_level_is_read_from_every_image_and_chooses_its_network(tool, tmp_path, monkeypatch):
    """Of images of quality 20, 60 and 97 and of one without, by networks for 20 alone and for 30 to 95."""
    torch.manual_seed(1)
    blind = PANet(1, 4, 0, attention={"levels": 1})
    write_checkpoint(blind, tmp_path / "car.safetensors", make_task("artifact_reduction", quality=(30, 95)))
    monkeypatch.setattr(
        "panet_plugin.checkpoints.load_official",
        lambda path: loaded.append(path.name) or load_official(path),
    )
    for quality in (20, 60, 97):
        Image.fromarray(COLOR).save(f"q{quality}.jpg", quality=quality)
    Path("bad.jpg").write_bytes(b"")
    pictures, loaded = ("q20.jpg", "q60.jpg", "q97.jpg", "photo.png", "bad.jpg"), []
    output = tool(*pictures, "--task", "car", "--device", "cpu", "--format", "png", code=1)
    tables = "(from its quantization tables)"
    for quality in (20, 60, 97):
        assert f"q{quality}.jpg: quality {quality} {tables}" in output
    assert "photo.png: quality unknown (no quantization tables in a PNG file); using a network for 30 to 95" in output
    assert output.count("warning") == 1
    assert "warning: q97.jpg: the network was trained for quality 30 to 95, not 97" in output
    assert output.count("bad.jpg") == 1 and "error: bad.jpg: not a readable image: the file is empty" in output
    assert sorted(loaded) == ["car.safetensors", "car20.safetensors"]
    assert {line.split(";")[0] for line in output.splitlines() if line.startswith("PANet, ")} == {
        "PANet, JPEG artifact reduction q20",
        "PANet, JPEG artifact reduction q30-95",
    }
    for name, network in (("q20", gray_network()), ("q60", blind), ("q97", blind), ("photo", blind)):
        picture = read_image(f"{name}.jpg" if name != "photo" else "photo.png")
        restored = read_image(f"restored/{name}.png").astype(int)
        # Alone and in a batch, halves may be rounded otherwise.
        assert np.abs(restored - luma_restored(picture, network)).max() <= 1


def test_an_option_overrides_the_level_of_the_file(tool, tmp_path):
    for quality in (20, 70):
        task = make_task("artifact_reduction", quality=quality)
        write_checkpoint(gray_network(), tmp_path / f"car{quality}.safetensors", task)
    Image.fromarray(COLOR).save("q20.jpg", quality=20)
    output = tool("q20.jpg", "--task", "car", "--quality", "70", "--device", "cpu")
    assert "JPEG artifact reduction q70; on" in output
    assert "quantization" not in output and "warning" not in output
    # The checkpoint that is given has a level, too.
    output = tool("q20.jpg", "--weights", "car70.safetensors", "--device", "cpu")
    assert "q20.jpg: quality 20 (from its quantization tables)" in output
    assert "warning: q20.jpg: the network was trained for quality 70, not 20" in output


def test_noise_is_estimated(tool, tmp_path):
    for name, gray in (("dn", False), ("gray", True)):
        task = make_task("denoising", sigma=(0, 20), gray=gray)
        write_checkpoint(PANet(task.channels, 4, 0, attention={"levels": 1}), tmp_path / f"{name}.safetensors", task)
    single = PANet(3, 4, 0, attention={"levels": 1})
    write_checkpoint(single, tmp_path / "dn50.safetensors", make_task("denoising", sigma=50))
    flat = np.full((40, 40, 3), 128, np.uint8)
    write_image(tmp_path / "flat.png", flat)
    write_image(tmp_path / "gray.png", add_gaussian_noise(flat[..., 0], 10, 0))
    output = tool("flat.png", "gray.png", "photo.png", "--task", "denoising", "--device", "cpu")
    assert "flat.png: sigma 0 (estimated from its pixels, which have hardly any noise)" in output
    assert re.search(r"gray\.png: sigma (9|10|11) \(estimated from its pixels\)", output)
    sigma = int(re.search(r"photo\.png: sigma (\d+)", output)[1])
    assert sigma > 50
    assert output.count("PANet, Denoising s0-20; on cpu") == 2 and "PANet, Denoising s50; on cpu" in output
    assert "warning" not in output, "an estimate is no reason to warn of a network for one level"
    assert (read_image("restored/flat.png") != 0).any()
    output = tool("photo.png", "--weights", "dn.safetensors", "--device", "cpu")
    assert f"warning: photo.png: the network was trained for sigma 0 to 20, not {sigma}" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "set --weights CHECKPOINT, or only --task to use a bundled model (artifact_reduction)"),
        (("--task", "artifact_reduction", "--config", "a.py"), "set --weights CHECKPOINT"),
        (("--sigma", "30", "--weights", "car20.safetensors"), "sigma: parameters require their task in --task"),
        (("--weights", "none.pth"), "none.pth: no such checkpoint file"),
        (("--task", "artifact_reduction", "-o", "."), "would replace an image"),
        (("--task", "artifact_reduction", "--tile", "20"), "an overlap of 16"),
        (("--task", "artifact_reduction", "--tile", "0"), "expected a whole number above 0"),
        (("--task", "artifact_reduction", "--chop", "9"), "limit must be at least 1024"),
        (("--task", "artifact_reduction", "--max-memory", "much"), "expected a size such as 800M or 4G"),
        (("--task", "super_resolution", "--weights", "car20.safetensors"), "does not fit a network with 1 channels"),
        (("--task", "demosaicing", "--weights", "car20.safetensors"), "does not fit a network with 1 channels"),
        (("--weights", "rgb.pth", "--chop"), "--chop: set --task"),
        (
            ("--weights", "rgb.pth", "--task", "demosaicing", "--self-ensemble"),
            "--self-ensemble does not work for demosaicing",
        ),
        (("--weights", "car20.safetensors", "--tile", "64", "--whole"), "not allowed with"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(tool, tmp_path, arguments, message):
    write_checkpoint(PANet(3, 4, 1), tmp_path / "rgb.pth")
    assert message in tool("photo.png", "--device", "cpu", *arguments, code=1)
    assert not (tmp_path / "restored").exists()


def test_chop_takes_the_tasks_limit(tool, tmp_path):
    """A color denoiser's pieces may have up to 6800 pixels, a demosaicer's 6400: here they have 6480."""
    big = np.zeros((142, 140, 3), np.uint8)
    write_image(tmp_path / "big.png", big)
    write_checkpoint(PANet(3, 2, 0, attention={"levels": 1}), tmp_path / "rgb.pth")
    for task, count in (("denoising", 4), ("demosaicing", 16)):
        assert f"chopped into {count} pieces" in tool("big.png", "--weights", "rgb.pth", "--task", task, "--chop")
