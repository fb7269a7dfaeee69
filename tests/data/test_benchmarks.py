"""Benchmark sets in the layouts that they come in, and their degraded versions."""

import io
import json
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from file_server import serve

from panet_plugin.data import BadImageError, read_image, write_image
from panet_plugin.data.benchmarks import benchmark_tasks, input_path, prepare_benchmarks
from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.data.verify import verify_root

REPOSITORY = Path(__file__).parents[2]


def put(folder, names, shape=(20, 25, 3), suffix=".png"):
    for number, name in enumerate(names):
        image = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        write_image(folder / f"{name}{suffix}", image)


def numbered(count):
    return [f"img_{number:03d}" for number in range(count)]


# The set, where its clean images lie, their names, and the suffix.
LAYOUTS = {
    "flat": ("Set5", "Set5", numbered(5), ".png"),
    "bmp": ("classic5", "Classic5", numbered(5), ".bmp"),
    "hr": ("Set14", "Set14/HR", numbered(14), ".png"),
    "edsr": ("Set14", "benchmark/Set14/HR", numbered(14), ".png"),
    "gt": ("Set5", "datasets/Set5/GT", numbered(5), ".png"),
    "hr in the name": ("Set5", "Set5_HR", numbered(5), ".png"),
    "original": ("CBSD68", "CBSD68-dataset/CBSD68/original_png", numbered(68), ".png"),
    "other name": ("B100", "BSD100", numbered(100), ".jpg"),
    "mcmaster": ("McMaster18", "McM", [str(number) for number in range(1, 19)], ".tif"),
    "live1": ("LIVE1", "live1/refimgs", numbered(29), ".bmp"),
    "kodak": ("Kodak24", "kodak", [f"kodim{number:02d}" for number in range(1, 25)], ".png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    name, folder, names, suffix = LAYOUTS[layout]
    put(tmp_path / "given" / folder, names, (4, 4, 3), suffix)
    (tmp_path / "given" / folder / "readme.txt").write_text("about these images")
    assert prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], [name]) == {}
    assert sorted(path.stem for path in (tmp_path / "root" / name / "HR").iterdir()) == sorted(names)


def test_lr_images_beside_the_clean_ones(tmp_path):
    """SelfExSR's layout."""
    for number in range(100):
        for kind, shape in (("HR", (8, 8, 3)), ("LR", (4, 4, 3))):
            put(tmp_path / "given/Urban100/image_SRF_2", [f"img_{number:03d}_SRF_2_{kind}"], shape)
    assert prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], ["Urban100"]) == {}
    images = sorted((tmp_path / "root/Urban100/HR").iterdir())
    assert [path.stem for path in images] == numbered(100)
    assert read_image(images[0]).shape == (8, 8, 3)


def test_every_degraded_version_is_that_of_the_task(tmp_path):
    for name, shape in (("Set5", (20, 25, 3)), ("McMaster18", (6, 7, 3)), ("classic5", (20, 25, 1))):
        put(tmp_path / "given" / name, numbered(BENCHMARKS[name].count), shape)
        assert prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], [name]) == {}
        folders = {str(Path(input_path(task, "x")).parent) for task in benchmark_tasks(name)}
        assert len(folders) == len(benchmark_tasks(name))
        outputs = json.loads((tmp_path / f"root/{name}.json").read_text())["outputs"]
        assert outputs.keys() == {f"{name}/{folder}" for folder in ("HR", *folders)}
        for task in benchmark_tasks(name):
            clean = read_image(tmp_path / "given" / name / "img_002.png", gray=None)
            made = read_image(tmp_path / "root" / name / input_path(task, "img_002"), gray=None)
            np.testing.assert_array_equal(made, task.degrade_image(task.reference(clean), "img_002"))
    assert verify_root(tmp_path / "root") == []
    # Gray stays gray: as RGB its luma would be another.
    assert read_image(tmp_path / "root/classic5/HR/img_000.png", gray=None).shape == (20, 25, 1)


def test_the_papers_tables_are_covered():
    """Columns of the tables (section 4): sets, and strengths of the degradation."""
    made = {name: {(task.name, task.level) for task in benchmark_tasks(name)} for name in BENCHMARKS}
    for name in ("Set5", "Set14", "B100", "Urban100", "Manga109"):
        assert {("super_resolution", f"x{scale}") for scale in (2, 3, 4)} <= made[name]
    for name in ("Kodak24", "CBSD68", "Urban100"):
        assert {("denoising", f"s{sigma}") for sigma in (10, 30, 50, 70)} <= made[name]
        assert ("demosaicing", "") in made[name]
    assert made["McMaster18"] == {("demosaicing", "")}
    for name in ("LIVE1", "classic5"):
        assert made[name] == {("artifact_reduction", f"q{quality}") for quality in (10, 20, 30, 40)}


def test_again_does_nothing_and_a_change_is_made_anew(tmp_path, caplog, tree):
    put(tmp_path / "given/Set5", numbered(5))
    prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], ["Set5"])
    before = tree(tmp_path / "root")
    caplog.set_level("INFO")
    prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], ["Set5"])
    assert "nothing to do" in caplog.text
    write_image(tmp_path / "given/Set5/img_003.png", np.zeros((20, 25, 3), np.uint8))
    prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], ["Set5"])
    changed = {path for path, digest in tree(tmp_path / "root").items() if before[path] != digest}
    assert changed == {"Set5.json", "Set5/HR/img_003.png"} | {
        f"Set5/LR_bicubic/X{scale}/img_003x{scale}.png" for scale in (2, 3, 4)
    }


def test_clean_images_in_place_stay(tmp_path, tree):
    put(tmp_path / "Set5/HR", numbered(5))
    before = tree(tmp_path / "Set5/HR")
    assert prepare_benchmarks(tmp_path, [tmp_path], ["Set5"]) == {}
    assert tree(tmp_path / "Set5/HR") == before
    assert (tmp_path / "Set5/LR_bicubic/X4/img_004x4.png").is_file()
    assert verify_root(tmp_path) == []
    (tmp_path / "Set5/HR/img_004.png").unlink()
    assert "img_004.png" in str(verify_root(tmp_path))


def test_someone_elses_set_is_not_replaced(tmp_path):
    put(tmp_path / "given/Set5", numbered(5))
    put(tmp_path / "root/Set5/HR", ["mine"])
    with pytest.raises(FileExistsError, match="Set5/HR exists"):
        prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], ["Set5"])


def test_what_is_missing_is_said(tmp_path, caplog):
    put(tmp_path / "given/Set5", numbered(4))
    missing = prepare_benchmarks(tmp_path / "root", [tmp_path / "given"])
    assert missing.keys() == BENCHMARKS.keys()
    assert missing["Set5"] == f"5 images expected, found 4 in {tmp_path / 'given/Set5'}"
    assert f"Set5: {missing['Set5']}" in caplog.text
    assert missing["Set14"] == "14 images expected, found none"


def test_bad_sources(tmp_path):
    put(tmp_path / "given/Set5", numbered(5))
    (tmp_path / "given/Set5/img_001.png").write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"img_001\.png"):
        prepare_benchmarks(tmp_path / "root", [tmp_path / "given"], ["Set5"])
    assert not (tmp_path / "root/Set5").exists()
    with pytest.raises(NotADirectoryError, match="gone is neither a folder nor an archive"):
        prepare_benchmarks(tmp_path / "root", [tmp_path / "gone"])
    with pytest.raises(ValueError, match="got Set6"):
        prepare_benchmarks(tmp_path / "root", [tmp_path], ["Set6"])
    put(tmp_path / "twice/Set5", numbered(5))
    put(tmp_path / "twice/Set5", numbered(1), suffix=".bmp")
    with pytest.raises(BadImageError, match=r"img_000\.png has the same name as img_000\.bmp"):
        prepare_benchmarks(tmp_path / "root", [tmp_path / "twice"], ["Set5"])


def test_script_downloads_an_archive(tmp_path, monkeypatch):
    put(tmp_path / "benchmark/Set5/HR", numbered(5))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(tmp_path / "benchmark", "benchmark")
    script = str(REPOSITORY / "data_prep/benchmarks.py")
    with serve({"/EDSR/benchmark.tar": buffer.getvalue()}) as server:
        arguments = [
            "benchmarks.py",
            "--out",
            str(tmp_path / "root"),
            "--download",
            f"{server.url}/EDSR/benchmark.tar",
        ]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(script, run_name="__main__")
        assert (tmp_path / "root/Set5/LR_bicubic/X2/img_000x2.png").is_file()
        monkeypatch.setattr(sys, "argv", [*arguments, "--sets", "Set5", "Set14"])
        with pytest.raises(SystemExit, match="not prepared: Set14"):
            runpy.run_path(script, run_name="__main__")
        assert len(server.requests) == 1
    assert (tmp_path / "root/archives/benchmark.tar.sha256").is_file()
