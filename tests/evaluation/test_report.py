import csv
import json

import pytest

from panet_plugin.evaluation import Score, markdown, means, write_reports
from panet_plugin.tasks import make_task

CAR = make_task("artifact_reduction", quality=10)
SCORES = [
    Score("classic5", "lena", "degraded", 20.0, 0.5),
    Score("classic5", "lena", "ours", float("inf"), 1.0),
    Score("classic5", "boats", "degraded", 21.0, 0.75),
    Score("classic5", "boats", "ours", 30.0, 0.875),
    Score("own", "cat", "degraded", 30.004, 0.93756),
    Score("own", "cat", "ours", 31.0, 0.9),
]


def test_markdown():
    page = markdown(CAR, SCORES, seed=7)
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert page.startswith("# JPEG artifact reduction q10\n\nprotocol `car_y` (luma, border 0, uniform8 SSIM window")
    assert "seed 7" in page
    assert table == [
        "| method | classic5 (2) PSNR | classic5 (2) SSIM | own (1) PSNR | own (1) SSIM |",
        "|---|---|---|---|---|",
        "| degraded | 20.50 | 0.6250 | 30.00 | 0.9376 |",
        "| ours | inf | 0.9375 | 31.00 | 0.9000 |",
        "| JPEG (published) | 27.82 | 0.7800 | - | - |",
        "| SA-DCT (published) | 28.88 | 0.8071 | - | - |",
        "| DnCNN (published) | 29.40 | 0.8026 | - | - |",
        "| RNAN (published) | 29.96 | 0.8178 | - | - |",
        "| PANet (published) | 30.03 | 0.8195 | - | - |",
    ]


def test_the_way_of_the_networks_is_told():
    for options, text in (
        ({"chop": 6400}, "seed 7, networks on pieces of fewer than 6400 pixels, as in the original, panet"),
        ({"window": "trained"}, "seed 7, attention in a window of the size of the training patches, panet"),
        ({"window": 24}, "seed 7, attention in a window of 24x24 pixels, panet"),
        ({}, "seed 7, panet"),
    ):
        assert text in markdown(CAR, SCORES, 7, **options)


def test_lpips_has_a_column_if_it_was_measured():
    page = markdown(make_task("denoising"), [Score("Kodak24", "1", "ours", 20.0, 0.5, 0.125)], seed=0)
    assert "| method | Kodak24 (1) PSNR | Kodak24 (1) SSIM | Kodak24 (1) LPIPS |" in page
    assert "| ours | 20.00 | 0.5000 | 0.1250 |" in page
    assert "| CBM3D (published) | 28.63 | - | - |" in page


def test_files(tmp_path):
    write_reports(tmp_path / "new", CAR, SCORES, seed=7)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        f"comparison.{s}" for s in ("csv", "json", "md")
    ]
    assert (tmp_path / "new/comparison.md").read_text() == markdown(CAR, SCORES, 7)

    content = json.loads((tmp_path / "new/comparison.json").read_text(), parse_constant=pytest.fail)
    assert content["task"] == {"name": "artifact_reduction", "quality": 10, "luma_only": True}
    assert (content["protocol"], content["seed"]) == ("car_y", 7)
    assert content["scores"][1]["psnr"] == content["means"][1]["psnr"] == "inf"
    assert content["scores"][4]["psnr"] == 30.004
    assert [row["method"] for row in content["means"] if row["published"]][-1] == "PANet"

    with (tmp_path / "new/comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(SCORES) + len(means(CAR, SCORES))
    assert rows[4] == {
        **{"task": "artifact_reduction", "level": "q10", "dataset": "own", "image": "cat", "method": "degraded"},
        **{"psnr": "30.004", "ssim": "0.93756", "lpips": ""},
    }
    assert [row["image"] for row in rows[6:]] == ["mean"] * 4 + ["published"] * 5
