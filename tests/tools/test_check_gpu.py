"""The check of a GPU, tried on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from panet_plugin.commands import check_gpu

ROOT = Path(__file__).parents[2]

#: Run with the core's packages alone.
ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"scipy", "skimage", "matplotlib", "psutil", "lmdb", "yaml", "mmengine", "requests"}:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
from panet_plugin.commands import check_gpu

sys.argv[1:] = ["--device", "cpu", "--out", sys.argv[1]]
check_gpu.main()
"""


def test_every_part_with_the_core_alone(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,), (page,) = tmp_path.glob("*.json"), tmp_path.glob("*.md")
    report = json.loads(found.read_text())
    assert list(report["rows"]) == list(check_gpu.PARTS)
    rows = report["rows"]
    assert {row["verdict"] for row in rows["correctness"]} == {"right"}
    assert all(row["repeatable"] for row in rows["correctness"])
    names = {row["implementation"] for row in rows["correctness"]}
    assert {"dense", "sdpa", "stream"} <= names and "triton" not in names and "no triton" in report["machine"]
    for part in ("attention", "training", "images"):
        assert rows[part] and all(row["ms"] > 0 for row in rows[part])
    assert {row["window"] for row in rows["attention"]} >= {None, 4}
    assert not rows["programs"]
    lines = page.read_text().splitlines()
    assert len([line for line in lines if line.startswith("## ")]) == len(rows) and "Not run." in lines
    assert sum(line.startswith("| ") for line in lines) == sum(len(part) + bool(part) for part in rows.values())


def test_what_is_wrong_fails_and_the_rest_goes_on(monkeypatch, tmp_path, capsys):
    attend = check_gpu.pyramid_attention

    def spoiled(*arguments, implementation, **options):
        if implementation == "sdpa":
            raise RuntimeError("broken")
        return attend(*arguments, implementation=implementation, **options) * (
            1.01 if implementation == "stream" else 1
        )

    monkeypatch.setattr(check_gpu, "pyramid_attention", spoiled)
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", "--device=cpu", f"--out={tmp_path}", "--parts", "correctness"])
    with pytest.raises(SystemExit, match="8 cases failed"):
        check_gpu.main()
    (found,) = tmp_path.glob("*.json")
    rows = json.loads(found.read_text())["rows"]["correctness"]
    assert {row["implementation"] for row in rows if row["verdict"] == "FAILED"} == {"sdpa", "stream"}
    assert {row["implementation"] for row in rows if row["verdict"] == "right"} >= {"dense"}
    assert "RuntimeError: broken" in capsys.readouterr().out


def test_nothing_is_begun_without_time(tmp_path):
    check = check_gpu.Check("cpu", tmp_path)
    check.run(["training"], 1e-9)
    assert {row["verdict"] for row in check.report["rows"]["training"]} == {"skipped: no time left"}


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(check_gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["check_gpu.py"])
    with pytest.raises(SystemExit, match="finds no CUDA device; --device cpu"):
        check_gpu.main()
