"""Sets of settings: what is read, what is refused, what is trained alike, and what a report says of it."""

import csv
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_sets import PICTURES, make_set
from mmengine.runner import Runner

import panet_plugin.frameworks.mmagic  # noqa: F401
from panet_plugin.ablation import Ablation, AblationError, cost, run, runs, settings, study
from panet_plugin.ablation.cost import StepCost
from panet_plugin.ablation.report import Outcome, markdown, write_report
from panet_plugin.archs import PyramidAttention
from panet_plugin.data import read_image
from panet_plugin.evaluation import EvaluationError, Score
from panet_plugin.files import locked
from panet_plugin.frameworks.mmagic.run import train
from panet_plugin.tasks import make_task
from panet_plugin.weights import read_state_dict

ROOT = Path(__file__).parents[2]
SETS = sorted((ROOT / "configs/ablation").glob("*.py"))
#: Makes the base a run of seconds. A checkpoint after every iteration, so that one can be interrupted.
TINY = {
    "model.generator.arch.arch.num_feat": 4,
    "model.generator.arch.arch.num_block": 2,
    "model.generator.at": ["body.0"],
    "model.generator.attention.levels": 2,
    "train_dataloader.batch_size": 2,
    "train_dataloader.dataset.patch_size": 8,
    "train_cfg.max_iters": 4,
    "default_hooks.checkpoint.interval": 1,
}
NONE = {**TINY, "model.generator.at": []}


@pytest.fixture(autouse=True)
def data(div2k, monkeypatch, tmp_path):
    """A copy: a process opens an LMDB once only."""
    shutil.copytree(div2k / "DIV2K_train_HR_sub.lmdb", tmp_path / "data/DIV2K_train_HR_sub.lmdb")
    monkeypatch.setenv("DIV2K_ROOT", str(tmp_path / "data"))
    settings._read.cache_clear()


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a set of settings and reads it."""

    def write(name="some", **content):
        content = {"base": str(ROOT / "configs/ablation/_base_/dn50.py"), "seeds": [0], **content}
        path = tmp_path / f"{name}.py"
        path.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items() if value is not None))
        return path

    return write


@pytest.fixture
def here(monkeypatch):
    """Let everything happen in this process, which has imported the frameworks already."""

    def call(function, *arguments, log=None):
        return function(*arguments)

    for module in (study, cost):
        monkeypatch.setattr(module, "in_process", call)
    monkeypatch.setattr(cost, "ROUNDS", 2)
    monkeypatch.setattr(cost, "MEMORY_ROUNDS", 1)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def blocks(setting):
    """Return the paths of the attention in a setting's network, and the network."""
    from mmagic.registry import MODELS

    generator = setting.config().model.generator
    network = MODELS.build({**generator, "input_shape": (1, 3, 10, 10)})
    return [name for name, module in network.named_modules() if isinstance(module, PyramidAttention)], network


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "attention": {"none": 0, "pixel": (1, 1), "single": (1, 3), "pyramid": (5, 3)},
        "levels": {f"levels{levels}": (levels, 3) for levels in range(1, 6)},
        "matching": {"none": 0, "soft": False, "hard": True},
        "placement": {"none": "", "front": "0", "middle": "3", "back": "7", "two": "37", "four": "1357"},
    }.items(),
)
def test_the_sets_are_what_they_say(name, expected):
    assert [path.stem for path in SETS] == ["attention", "levels", "matching", "placement"]
    ablation = Ablation.fromfile(ROOT / f"configs/ablation/{name}.py")
    assert ablation.task() == make_task("denoising", sigma=50)
    assert len(ablation.seeds) >= 2
    assert list(ablation.settings) == list(expected)
    backbones = set()
    for setting, wanted in expected.items():
        torch.manual_seed(0)
        paths, network = blocks(ablation.setting(setting))
        backbones.add(tuple(p.sum().item() for n, p in network.named_parameters() if "pyramid_attention" not in n))
        block = network.get_submodule(paths[0]) if paths else None
        if name == "placement":
            assert [path.split(".")[1] for path in paths] == list(wanted)
        elif wanted == 0 and setting == "none":
            assert block is None
        elif name == "matching":
            assert block.hard is wanted
        else:
            assert (len(block.scales), block.ksize) == wanted
    # Whatever is inserted, the rest starts from the same weights.
    assert len(backbones) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"settings": None}, "settings is missing"),
        ({"seeds": None, "settings": {"one": {}}}, "seeds is missing"),
        ({"base": "nothing.py", "settings": {"one": {}}}, "its base .*nothing.py is not an existing"),
        ({"settings": {}}, "settings must be overrides of the base by name"),
        ({"settings": {"a/b": {}}}, "expected names of letters"),
        ({"settings": {"one": 1}}, "expected names of letters"),
        ({"settings": {"one": {}}, "seeds": [0, 0]}, "seeds must be distinct"),
        ({"settings": {"one": {}}, "seeds": [0.5]}, "seeds must be distinct integers"),
        ({"settings": {"one": {}}, "crop": 0}, "crop must be a side in pixels"),
        ({"settings": {"one": {}, "two": {}}}, "two is the same as one"),
        ({"settings": {"one": {"train_dataloader.num_workers": 0}}}, "one needs train_dataloader.num_workers"),
        ({"settings": {"one": {}, "two": {"train_dataloader.dataset.task.sigma": 30}}}, "two is for another task"),
        ({"settings": {"one": {"train_dataloader": 3}}}, "one does not fit .*dn50.py"),
    ],
)
def test_what_is_no_set_of_settings(write, content, message):
    with pytest.raises((AblationError, FileNotFoundError), match=message):
        Ablation.fromfile(write(**content))


def test_settings_see_the_same_data_and_start_from_the_same_weights(write):
    ablation = Ablation.fromfile(write(settings={"none": NONE, "pyramid": TINY}))
    batches, weights = [], []
    for setting in ablation.trainings():
        cfg = setting.config()
        cfg.work_dir, cfg.experiment_name = cfg.data_root, f"{setting.name} of this test"
        runner = Runner.from_cfg(cfg)
        batch = next(iter(runner.build_dataloader(cfg.train_dataloader, seed=runner.seed)))
        batches.append(torch.stack([*batch["inputs"], *(sample.gt_img for sample in batch["data_samples"])]))
        weights.append({k: v for k, v in runner.model.state_dict().items() if "pyramid_attention" not in k})
    assert torch.equal(*batches)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def lines(folder):
    return (folder / "console.log").read_text().splitlines()


def test_killed_and_gone_on_with(write, here, tmp_path, monkeypatch):
    """As if nothing had happened: the very weights of a run that nothing interrupted."""
    path = write("tiny", settings={"none": NONE, "pyramid": TINY}, crop=20)
    pictures, out = make_set(tmp_path / "Two"), tmp_path / "out"
    command = [sys.executable, "tools/ablate.py", path, "--data", pictures, "--out", out, "--jobs", "1"]
    last = out / "none/seed0/last_checkpoint"
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while not (last.exists() and last.read_text()) and process.poll() is None:
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    # What it had started ends by itself, and with it its hold of the run.
    with locked(last.parent):
        assert not (out / "pyramid").exists()
        before = Path(last.read_text())
    assert before.parent == last.parent
    first = int(re.search(r"iter_(\d)", before.name)[1])

    ablation = Ablation.fromfile(path)
    page = run(ablation, [pictures], out)
    assert "2 of 2 runs finished" in page
    logs = sorted((out / "none/seed0").glob("2*/*.log"))
    if first < 4:
        assert f"resumed epoch: 0, iter: {first}" in logs[-1].read_text()
    whole = tmp_path / "whole/none/seed0"
    setting = ablation.trainings()[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the run's
    runs.in_process(partial(train, setting.base, work_dir=whole, options=setting.overrides))
    found, expected = (read_state_dict(folder / "iter_4.pth") for folder in (out / "none/seed0", whole))
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    check_results(out, page)

    # Nothing is done twice but what is not whole: a checkpoint that was not written to its end, and a note
    # of it that is cut off.
    (out / "none/seed0/iter_4.pth").write_bytes(b"")
    (out / "none/seed0/last_checkpoint").write_text("")
    kept = {file: file.stat().st_mtime_ns for file in [out / "costs.json", *out.glob("pyramid/**/*.pth")]}
    assert run(ablation, [pictures], out).splitlines()[4:8] == page.splitlines()[4:8]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept

    # What was trained by other settings is not taken for this.
    changed = Ablation.fromfile(write("tiny", settings={"none": {**NONE, "train_cfg.max_iters": 5}, "pyramid": TINY}))
    with pytest.raises(AblationError, match=r"none/seed0 has a run of another setting(.|\n)*max_iters: 4, now 5"):
        run(changed, [pictures], out)


def check_results(out, page):
    report = json.loads((out / "ablation.json").read_text())
    middles = sorted((out / "middle20/Two").iterdir())
    assert [read_image(path).shape for path in middles] == [(20, 20, 3)] * 2
    np.testing.assert_array_equal(read_image(middles[0]), PICTURES["chelsea"][6:26, 4:24])
    assert {(score["setting"], score["image"]) for score in report["scores"]} == {
        (name, picture) for name in ("none", "pyramid") for picture in PICTURES
    }
    for name in ("none", "pyramid"):
        weights = read_state_dict(out / name / "seed0/iter_4.pth")
        assert report["costs"][name]["parameters"] == sum(value.numel() for value in weights.values())
        assert report["costs"][name]["seconds"] > 0
        assert report["costs"][name]["megabytes"] >= 0
        psnr = [score["psnr"] for score in report["scores"] if score["setting"] == name]
        assert f"| {name} | {sum(psnr) / 2:.2f} (" in page
    assert report["costs"]["none"]["times"] == 1
    assert report["costs"]["pyramid"]["parameters"] > report["costs"]["none"]["parameters"]
    assert min(read_image(out / "ablation.png").shape[:2]) > 300


def outcome(**changes):
    task = make_task("denoising", sigma=50)
    wanted = [(name, seed) for seed in (0, 1) for name in ("none", "pyramid")]
    psnr = {("none", 0): 26.0, ("pyramid", 0): 26.5, ("none", 1): 26.2, ("pyramid", 1): 26.1}
    content = {
        "name": "attention",
        "task": task,
        "budget": "4 iterations",
        "crop": None,
        "threads": 1,
        "reference": "none",
        "wanted": wanted,
        "scores": {
            key: [Score("Set14", picture, key[0], value + more, 0.5) for picture, more in (("a", 1.0), ("b", -1.0))]
            for key, value in psnr.items()
        },
        "untouched": [Score("Set14", picture, "degraded", 14.5, 0.1) for picture in "ab"],
        "costs": {"none": StepCost(100, 0.1, 1.0, 10.0), "pyramid": StepCost(1234, 0.35, 3.5, 20.0)},
    }
    return Outcome(**{**content, **changes})


def test_report(tmp_path):
    page = write_report(tmp_path, outcome())
    assert (tmp_path / "ablation.md").read_text() == page
    assert "# attention: Denoising s50" in page
    assert "4 iterations, seeds 0, 1; 4 of 4 runs finished" in page
    assert "on whole images" in page
    assert "| degraded | 14.50 | - |" in page
    assert "| none | 26.10 (26.00 to 26.20) | - |" in page
    # Of the same seed: +0.5 and -0.1.
    assert "| pyramid | 26.30 (26.10 to 26.50) | +0.20 (-0.10 to +0.50) |" in page
    assert "| pyramid | 1,234 | 350 | 3.50 | 20 |" in page
    rows = list(csv.DictReader((tmp_path / "ablation.csv").open()))
    assert [(row["setting"], row["seed"], float(row["psnr"])) for row in rows] == [
        *(("none", "0", 26.0), ("pyramid", "0", 26.5), ("none", "1", 26.2), ("pyramid", "1", 26.1))
    ]
    assert rows[1]["seconds_per_step"] == "0.35"


def test_a_report_of_unfinished_runs():
    page = markdown(outcome(scores={("pyramid", 0): [Score("Set14", "a", "pyramid", 26.5, 0.5)]}, costs={}))
    assert "1 of 4 runs finished" in page
    assert "| none | - | - |" in page
    assert "| pyramid | 26.50 (26.50 to 26.50) | - |" in page
    assert "parameters" not in page


def test_plot():
    from panet_plugin.ablation.report import plot

    (axes,) = plot(outcome()).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"}
    assert drawn == {"none": [[100, 26.0], [100, 26.2]], "pyramid": [[350, 26.5], [350, 26.1]]}
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "_"] == pytest.approx([26.1, 26.3])


def test_a_process_that_is_killed_says_so(tmp_path):
    log = tmp_path / "deep/console.log"
    with pytest.raises(EvaluationError, match=r"a process was killed.*console\.log"):
        runs.in_process(os._exit, 1, log=log)
    assert log.exists()


def test_the_tool(write, here, tmp_path, monkeypatch, capsys):
    def tool(path, *options):
        arguments = [path, "--data", make_set(tmp_path / "Two"), *options]
        monkeypatch.setattr(sys, "argv", ["ablate.py", *map(str, arguments)])
        runpy.run_path("tools/ablate.py", run_name="__main__")

    with pytest.raises(SystemExit, match=r"error: .*no\.py: expected an existing \.py file that describes a study"):
        tool(tmp_path / "no.py")
    path = write(settings={"none": {**NONE, "train_cfg.max_iters": 1}})
    tool(path, "--seeds", "3", "--out", tmp_path / "out")
    output = capsys.readouterr().out
    assert "none, seed 3: 1 of 1 runs finished" in output
    assert (tmp_path / "out/ablation.md").read_text() in output
    assert (tmp_path / "out/none/seed3/iter_1.pth").is_file()


def test_the_docs_example_is_a_set_of_settings(tmp_path):
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/ablation.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "own.py").write_text(text.replace("_base_", str(ROOT / "configs/ablation/_base_")))
    ablation = Ablation.fromfile(tmp_path / "own.py", seeds=[5])
    assert [(run.name, run.seed) for run in ablation.trainings()] == [("none", 5), ("pyramid", 5), ("hard", 5)]
    assert ablation.crop == 96
    assert ablation.setting("hard").config().model.generator.attention == {"levels": 5, "ksize": 3, "hard": True}
