"""tools/show_attention.py, as a user runs it."""

import json
import re
import runpy
import sys

import numpy as np
import pytest
import torch
from evaluation_sets import PICTURES

from panet_plugin.archs import PANet, attention_window
from panet_plugin.data import read_image, write_image
from panet_plugin.visualization import AttentionProbe
from panet_plugin.weights import write_checkpoint


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Return a function that runs the tool on an image with a gray network, and returns what it printed."""
    torch.manual_seed(0)
    network = PANet(1, 8, 2, attention={"levels": 2}).eval()
    network.trained_patch = 9
    write_checkpoint(network, tmp_path / "net.pth")
    write_image(tmp_path / "chelsea.png", PICTURES["chelsea"])

    def run(*arguments, picture="chelsea.png", message=None):
        files = (tmp_path / picture, "--weights", tmp_path / "net.pth", "--out", tmp_path / "out")
        monkeypatch.setattr(sys, "argv", ["show_attention.py", *map(str, (*files, *arguments))])
        if message is None:
            runpy.run_path("tools/show_attention.py", run_name="__main__")
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path("tools/show_attention.py", run_name="__main__")
        assert message in f"{stopped.value.code} {capsys.readouterr().err}"
        assert not (tmp_path / "out").exists()
        return None

    run.network = network
    return run


def read_page(tmp_path):
    page = (tmp_path / "out/chelsea.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', page)[1])


def compare(found, network, window):
    """Check one point of a page; a gray network is shown the luma."""
    luma = np.rint(PICTURES["chelsea"] @ [65.481, 128.553, 24.966] / 255 + 16).astype(np.uint8)
    with attention_window(network, window):
        (view,) = AttentionProbe(network, luma[..., None]).views([(20, 31)], 3)
    shown = next(point for point in found["points"] if point["at"] == [20, 31])
    assert shown["seen"] == view.seen
    assert [match[:3] for match in shown["matches"]] == [[m.level, m.row, m.column] for m in view.matches]
    assert [match[3] for match in shown["matches"]] == pytest.approx([m.weight for m in view.matches], rel=0.006)


def test_figures_and_a_page(run, tmp_path):
    output = run("--at", 3, 4, 20, 31, "--html", "--every", 10, "--matches", 3, "--dpi", 30, "--window", "none")
    assert output.split() == [str(tmp_path / "out" / f"chelsea{end}") for end in ("_3_4.png", "_20_31.png", ".html")]
    assert len(list((tmp_path / "out").iterdir())) == 3
    first, second = (read_image(tmp_path / f"out/chelsea_{at}.png") for at in ("3_4", "20_31"))
    assert first.shape == second.shape
    assert first.shape[1] == 13 * 30
    assert (first != second).any()
    found = read_page(tmp_path)
    assert found["title"] == "chelsea.png: attention of body.blocks.1"
    grid = [(x, y) for y in (0, 10, 20, 30) for x in (3, 13, 23)]
    assert [tuple(point["at"]) for point in found["points"]] == sorted(
        [*grid, (3, 4), (20, 31)], key=lambda at: at[::-1]
    )
    compare(found, run.network, None)
    assert "with 1,596 patches on 2 levels" in found["explanation"]


def test_the_window(run, tmp_path):
    for options, window in (((), 9), (("--window", 14), 14), (("--window", "none"), None)):
        run("--at", 20, 31, "--html", "--matches", 3, "--dpi", 30, *options)
        found = read_page(tmp_path)
        compare(found, run.network, window)
        assert (f"patches, in a square of {window}x{window} pixels around it," in found["explanation"]) == bool(window)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "select pixels with --at X Y, or with --html --every N"),
        (("--html",), "select pixels"),
        (("--at", 3), "--at takes pairs of X and Y, got 1 numbers"),
        (("--at", 3, 4, "--every", 2), "--every requires --html"),
        (("--at", 3, 4, "--matches", 0), "--matches must be from 1 to 1000, got 0"),
        (("--at", 3, 4, "--dpi", "nan"), "--dpi must be from 1 to 1000, got nan"),
        (("--at", 28, 4), "error: pixel (28, 4) is outside the image: expected x from 0 to 27 and y from 0 to 31"),
        (("--at", 1, 1, 5, -1), "error: pixel (5, -1) is outside"),
        (("--html", "--every", 0), "error: the distance of the grid's pixels must be at least 1, got 0"),
        (("--at", 3, 4, "--html", "--matches", 21), "error: a page can have 1 to 20 matches, got 21"),
        (("--at", 3, 4, "--block", "tail"), "PANet has no pyramid attention 'tail': choose one of body.blocks.1"),
        (("--at", 3, 4, "--weights", "none.pth"), "error: none.pth: no such checkpoint file"),
    ],
)
def test_what_is_wrong_is_said(run, arguments, message):
    run(*arguments, message=message)


@pytest.mark.parametrize("name", ["<script>alert(1)<script>.png", '"><img onerror=alert(1)>.png', "$\\x$.png"])
def test_names_of_images_are_text(run, tmp_path, name):
    (tmp_path / "chelsea.png").rename(tmp_path / name)
    run("--at", 3, 4, "--html", "--dpi", 30, picture=name)
    page = (tmp_path / f"out/{name[:-4]}.html").read_text(encoding="utf-8")
    assert name not in page
    assert json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["title"].startswith(f"{name}: attention")


def test_the_image_is_named(run, tmp_path):
    (tmp_path / "chelsea.png").write_bytes(b"GIF89a")
    run("--at", 1, 1, message="chelsea.png: not a readable image")
