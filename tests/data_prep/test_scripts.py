"""The scripts, as a user runs them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from preloaded import run_script

from panet_plugin.data import read_image, write_image

REPOSITORY = Path(__file__).parents[2]


def run(script, *arguments):
    return run_script(f"data_prep/{script}", arguments, os.environ | {"PYTHONPATH": str(REPOSITORY)})


def tree(root):
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_sample(tmp_path):
    first = run("sample.py", "--out", tmp_path)
    assert first.returncode == 0, first.stderr
    assert "100%" in first.stderr  # a progress bar
    before = tree(tmp_path)
    times = {path: (tmp_path / path).stat().st_mtime_ns for path in before}

    for split, names in (
        ("train", "brick camera chelsea flower grass gravel hubble retina rocket"),
        ("valid", "astronaut china coffee"),
    ):
        assert {path.stem for path in (tmp_path / f"DIV2K_{split}_HR").iterdir()} == set(names.split())
        for name in names.split():
            height, width, _ = read_image(tmp_path / f"DIV2K_{split}_HR/{name}.png").shape
            assert height % 12 == width % 12 == 0
            for scale in (2, 3, 4):
                lr = read_image(tmp_path / f"DIV2K_{split}_LR_bicubic/X{scale}/{name}x{scale}.png")
                assert lr.shape == (height // scale, width // scale, 3)
            # A small network restores these within seconds on a CPU.
            assert split == "train" or height * width < 70000
    for suffix in ("train_HR_sub", "train_LR_bicubic_X2_sub", "valid_HR", "valid_LR_bicubic_X2"):
        assert (tmp_path / f"DIV2K_{suffix}.lmdb/meta_info.txt").is_file()

    again = run("sample.py", "--out", tmp_path)
    assert again.returncode == 0
    assert again.stderr.count("nothing to do") == 2
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in before} == times


@pytest.fixture
def hr_dir(tmp_path):
    for name in ("one", "two"):
        image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
        write_image(tmp_path / "hr" / f"{name}.png", image)
    return tmp_path / "hr"


def test_make_lmdb(hr_dir, tmp_path):
    arguments = ("--hr", hr_dir, "--out", tmp_path / "root")
    made = run("make_lmdb.py", *arguments, "--scale", 2, "--subimage", 24, 12)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "root/DIV2K_train_LR_bicubic_X2_sub.lmdb/data.mdb").is_file()
    assert not (tmp_path / "root/DIV2K_train_LR_bicubic_X3_sub.lmdb").exists()
    valid = run("make_lmdb.py", *arguments, "--name", "DIV2K_valid", "--subimage", "none", "--folders", "--workers", 1)
    assert valid.returncode == 0, valid.stderr
    for scale in (2, 3, 4):
        assert (tmp_path / f"root/DIV2K_valid_LR_bicubic_X{scale}.lmdb/data.mdb").is_file()
    given = run(
        "make_lmdb.py", "--hr", hr_dir, "--lr", tmp_path / "root/DIV2K_valid_LR_bicubic", "--out", tmp_path / "given"
    )
    # 50 x 70 was cropped to 48 x 60, and its LR images are too small for the whole image.
    assert given.returncode == 1
    assert "onex2.png: 24x30 pixels, expected 25x35 for x2 of one.png" in given.stderr


@pytest.mark.parametrize("skip", [False, True])
def test_bad_file_stops_make_lmdb_or_is_skipped(hr_dir, tmp_path, skip):
    (hr_dir / "bad.png").write_bytes((hr_dir / "one.png").read_bytes()[:1000])
    result = run("make_lmdb.py", "--hr", hr_dir, "--out", tmp_path / "root", *["--skip-bad"] * skip)
    assert "bad.png: not a readable image" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == (0 if skip else 1)
    assert (tmp_path / "root/DIV2K_train_HR_sub.lmdb").exists() == skip


@pytest.mark.parametrize("subimage", [["480"], ["480", "abc"], ["480", "240", "120"]])
def test_bad_subimage(hr_dir, tmp_path, subimage):
    result = run("make_lmdb.py", "--hr", hr_dir, "--out", tmp_path / "root", "--subimage", *subimage)
    assert result.returncode == 2
    assert "expected SIZE STEP" in result.stderr


def test_help_names_the_outputs():
    result = run("make_lmdb.py", "--help")
    assert result.returncode == 0
    assert "NAME_LR_bicubic_X2_sub.lmdb" in result.stdout


def test_shards(hr_dir, tmp_path):
    arguments = ("--hr", hr_dir, "--out", tmp_path / "root", "--scale", 2, "--subimage", 24, 12)
    for number in (1, 2):
        made = run("make_lmdb.py", *arguments, "--shard", f"{number}/2")
        assert made.returncode == 0, made.stderr
    assert "all 2 shards are prepared" in made.stderr
    assert (tmp_path / "root/DIV2K_train_HR_sub.lmdb/2-of-2.lmdb/data.mdb").is_file()
    other = run("make_lmdb.py", *arguments, "--shard", "1/1")
    assert other.returncode == 1
    assert "has 2 shards" in other.stderr
    assert run("verify.py", tmp_path / "root").returncode == 0
    wrong = run("make_lmdb.py", *arguments, "--shard", "3/2")
    assert wrong.returncode == 2
    assert "expected a shard such as 3/8" in wrong.stderr
