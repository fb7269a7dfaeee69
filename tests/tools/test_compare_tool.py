"""tools/compare.py and tools/paper_check.py, as a user runs them."""

import json
import runpy
import sys

import pytest
import torch
from evaluation_sets import PICTURES, make_set
from skimage import data

from panet_plugin.archs import PAEDSR
from panet_plugin.data import read_image, write_image
from panet_plugin.inference import Restorer
from panet_plugin.tasks import make_task
from panet_plugin.weights import write_checkpoint

SR = ("--task", "super_resolution", "--scale", "2")


@pytest.fixture
def tool(monkeypatch, tmp_path, capsys):
    """Return a function that runs a script in this process, with its own folder for results."""

    def run(script, *arguments, message=None):
        out = ("--out", tmp_path / "out") if script == "compare" else ()
        monkeypatch.setattr(sys, "argv", [script, *map(str, (*arguments, *out))])
        if message is None:
            runpy.run_path(f"tools/{script}.py", run_name="__main__")
        else:
            with pytest.raises(SystemExit) as stopped:
                runpy.run_path(f"tools/{script}.py", run_name="__main__")
            assert message in f"{stopped.value.code} {capsys.readouterr().err}"
            assert not (tmp_path / "out/comparison.md").exists()

    return run


@pytest.fixture
def tiny(tmp_path):
    return make_set(tmp_path / "Set5")


def test_compare(run_tool, tiny, tmp_path):
    torch.manual_seed(0)
    write_checkpoint(PAEDSR(2, mid_channels=8, num_blocks=1, attention={"levels": 2}), tmp_path / "net.pth")
    for name, picture in PICTURES.items():
        height, width = (side - side % 2 for side in picture.shape[:2])
        write_image(tmp_path / f"theirs/{name}.png", picture[:height, :width])
    arguments = (
        *("compare.py", *SR, "--data", tiny, "--out", tmp_path / "out"),
        *("--methods", "bicubic", f"net={tmp_path / 'net.pth'}", f"theirs={tmp_path / 'theirs'}"),
    )
    output = run_tool(*arguments, "--save-images", "--figure", "coffee:4,2,12,16")
    page = (tmp_path / "out/comparison.md").read_text()
    assert page in output
    assert "2/2" in output
    assert "| theirs | inf | 1.0000 |" in page
    assert "| PA-EDSR (published) | 38.33 | 0.9617 |" in page
    saved = [read_image(path) for path in sorted((tmp_path / "out/images/net/Set5").iterdir())]
    assert [image.shape for image in saved] == [(32, 28, 3), (30, 32, 3)]
    assert str(tmp_path / "out/figures/Set5_coffee_4_2_12_16.png") in output
    assert read_image(tmp_path / "out/figures/Set5_coffee_4_2_12_16.png").std() > 10
    scores = json.loads((tmp_path / "out/comparison.json").read_text())["scores"]
    assert [score["method"] for score in scores] == ["bicubic", "net", "theirs"] * 2
    assert (tmp_path / "out/comparison.csv").read_text().count("\n") == 1 + 6 + 3 + 7


def test_chopped_as_by_the_original(tool, tmp_path):
    picture = data.astronaut()[:88, 100:196]  # larger than its pieces
    write_image(tmp_path / "set/astronaut.png", picture)
    torch.manual_seed(0)
    network = PAEDSR(2, mid_channels=8, num_blocks=1, attention={"levels": 2})
    write_checkpoint(network, tmp_path / "net.pth")
    arguments = ("compare", *SR, "--data", tmp_path / "set", "--methods", f"net={tmp_path / 'net.pth'}")
    scores = {}
    for chop in ((), ("--chop",)):
        tool(*arguments, *chop)  # not the cached scores of the other
        report = json.loads((tmp_path / "out/comparison.json").read_text())
        (scores[report["chop"]],) = (score["psnr"] for score in report["scores"])
    assert "on pieces of fewer than 6400 pixels" in (tmp_path / "out/comparison.md").read_text()
    task = make_task("super_resolution", scale=2)
    reference = task.reference(picture)
    for chop, layout in ((None, {}), (6400, {"mode": "chop", "limit": 6400})):
        restored = Restorer(network, **layout).restore(task.degrade(reference))
        assert scores[chop] == pytest.approx(task.protocol.psnr(restored, reference, 2))
    assert scores[None] != scores[6400]


def test_the_window_is_that_of_the_training_unless_another_is_asked_for(tool, tmp_path):
    picture = data.astronaut()[:64, 100:160]
    write_image(tmp_path / "set/astronaut.png", picture)
    torch.manual_seed(0)
    network = PAEDSR(2, mid_channels=8, num_blocks=1, attention={"levels": 2})
    network.trained_patch = 8
    write_checkpoint(network, tmp_path / "net.pth")
    arguments = ("compare", *SR, "--data", tmp_path / "set", "--methods", f"net={tmp_path / 'net.pth'}")
    task = make_task("super_resolution", scale=2)
    reference = task.reference(picture)
    scores = {}
    for options, window, layout in (
        ((), 8, {}),
        (("--window", "none"), None, {}),
        (("--window", "5"), 5, {}),
        (("--chop",), None, {"mode": "chop"}),
        (("--chop", "--window", "8"), 8, {"mode": "chop"}),
    ):
        tool(*arguments, *options)  # not what is kept of the others
        report = json.loads((tmp_path / "out/comparison.json").read_text())
        restored = Restorer(network, window=window, **layout).restore(task.degrade(reference))
        (scores[options],) = (score["psnr"] for score in report["scores"])
        assert scores[options] == pytest.approx(task.protocol.psnr(restored, reference, 2))
        assert report["window"] == ("trained" if not options else window)
    assert len(set(scores.values())) > 3


def test_a_second_run_needs_no_network(tool, tiny, tmp_path, monkeypatch):
    write_checkpoint(PAEDSR(2, mid_channels=8, num_blocks=1, attention={"levels": 2}), tmp_path / "net.pth")
    arguments = ("compare", *SR, "--data", tiny, "--methods", f"net={tmp_path / 'net.pth'}")
    tool(*arguments)
    first = (tmp_path / "out/comparison.json").read_text()

    def no_network(*args):
        raise AssertionError("loaded again")

    monkeypatch.setattr("panet_plugin.checkpoints.load_any", no_network)
    tool(*arguments)
    assert (tmp_path / "out/comparison.json").read_text() == first


def test_figures_do_not_need_saved_images(tool, tiny, tmp_path, capsys):
    tool("compare", *SR, "--data", tiny, "--methods", "bicubic", "--figure", "auto", "coffee")
    names = sorted(path.name for path in (tmp_path / "out/figures").iterdir())
    assert {"Set5_coffee.png"} <= set(names) <= {"Set5_coffee.png", "Set5_chelsea.png"}
    assert not (tmp_path / "out/images").exists()
    assert str(tmp_path / "out/figures/Set5_coffee.png") in capsys.readouterr().out


def test_a_checkpoint_with_its_config(tool, tiny, tmp_path):
    arguments = {"scale": 2, "mid_channels": 8, "num_blocks": 1, "attention": {"levels": 1}}
    torch.save({"params": PAEDSR(**arguments).state_dict()}, tmp_path / "net.pth")
    (tmp_path / "net.yml").write_text(json.dumps({"network_g": {"type": "PAEDSR", **arguments}}))
    bare = ("compare", *SR, "--data", tiny, "--methods", f"net={tmp_path / 'net.pth'}")
    tool(*bare, message="pass the config with which it was trained")
    tool(*bare, "--config", f"net={tmp_path / 'net.yml'}")
    assert "| net |" in (tmp_path / "out/comparison.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "denoising", "--quality", "10"), "denoising has the parameters sigma, gray, got quality"),
        (("--task", "denoising", "--sigma", "-1"), "sigma must be a finite number of at least 0"),
        (("--task", "artifact_reduction", "--quality", "101"), "quality must be a whole number from 1 to 100, got 101"),
        (("--task", "artifact_reduction", "--quality", "0"), "from 1 to 100, got 0"),
        (("--task", "super_resolution", "--scale", "0"), "scale must be a whole number of at least 1, got 0"),
        (("--task", "demosaicing", "--pattern", "RGB"), "pattern must be one of GRBG"),
        (("--task", "denoising", "--methods", "nothing"), "expected NAME=PATH, got 'nothing'"),
        (("--task", "denoising", "--methods", "bicubic"), "error: bicubic is a method of super-resolution"),
        (("--task", "super_resolution"), "error: degraded images of x2 are smaller"),
        (("--task", "denoising", "--methods", "net=none.pth"), "No such file or directory: 'none.pth'"),
        (("--task", "denoising", "--config", "net=a.py"), "--config: not in --methods: net"),
        (("--task", "denoising", "--data", "none"), "error: none: not a folder"),
        (("--task", "denoising", "--figure", "none"), "error: figure 'none': expected auto, NAME or NAME:X,Y,WIDTH"),
        (("--task", "denoising", "--figure", "coffee:9,9,99,9"), "not within the image, which has 33x31"),
    ],
)
def test_what_is_wrong_is_said(tool, tiny, arguments, message):
    tool("compare", "--data", tiny, "--methods", "degraded", *arguments, message=message)


def test_a_bad_image_is_named(tool, tiny):
    (tiny / "HR/bad.png").write_bytes(b"")
    tool("compare", "--task", "denoising", "--data", tiny, "--methods", "degraded", message="bad.png: not a readable")


def test_paper_check_without_images(tool, tmp_path):
    tool("paper_check", "--data", tmp_path, message=f"error: expected under {tmp_path}:\n  {tmp_path}/classic5/HR: 5")


@pytest.mark.parametrize("passed", [True, False])
def test_paper_check_fails_if_a_figure_differs(monkeypatch, tmp_path, capsys, passed):
    from panet_plugin.commands import paper_check
    from panet_plugin.evaluation.paper_check import Check

    check = Check("Mosaiced PSNR", "9.17", "9.18", "none", passed)
    monkeypatch.setattr(paper_check, "paper_checks", lambda root: iter([check]))
    monkeypatch.setattr(sys, "argv", ["paper_check", "--out", str(tmp_path / "page.md")])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path("tools/paper_check.py", run_name="__main__")
    assert stopped.value.code == (not passed)
    assert f"{int(passed)} of 1 figures agree" in capsys.readouterr().out
    assert "| Mosaiced PSNR | 9.17 | 9.18 |" in (tmp_path / "page.md").read_text()
