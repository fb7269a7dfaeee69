"""tools/restore.py and tools/compare.py in several processes, as torchrun and srun start them."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from evaluation_sets import PICTURES, make_set
from preloaded import ROOT, run_script, run_together

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.data import write_image
from panet_plugin.tasks import make_task
from panet_plugin.weights import write_checkpoint

DENOISING = make_task("denoising", sigma=30)


@pytest.fixture
def pictures(tmp_path):
    """Eleven images of two sizes, and one that is none; a network for them."""
    draw = np.random.default_rng(0)
    for number in range(11):
        height, width = (24, 20) if number % 3 else (16, 40)
        write_image(tmp_path / f"in/{number}.png", draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
    (tmp_path / "in/bad.png").write_bytes(b"")
    torch.manual_seed(0)
    write_checkpoint(PANet(3, 4, 1, attention={"levels": 2}), tmp_path / "net.safetensors", DENOISING)
    return tmp_path


def restoring(folder, out):
    """Return a command line, in small batches so that both processes have several."""
    return (
        *(folder / "in", "-o", folder / out, "--weights", folder / "net.safetensors"),
        *("--device", "cpu", "--whole", "--batch", "2", "--max-memory", "1G", "--skip-existing"),
    )


def srun(step="0", world=2):
    """Return the environments of the tasks of a step; no scheduler is needed for them."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": step, "SLURM_NTASKS": str(world)}
    return [environment | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(world)]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_restoring_in_two_processes(run_tool, pictures):
    """By torchrun and by srun as by one process, the last two after one of them was killed."""
    output = run_tool("restore.py", *restoring(pictures, "one"), code=1)
    assert output.rstrip().endswith("1 of 12 failed")
    expected = contents(pictures / "one")
    assert len(expected) == 11

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    arguments = map(str, restoring(pictures, "torchrun"))
    done = subprocess.run(
        [*command, "tools/restore.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert contents(pictures / "torchrun") == expected
    assert output.count("bad.png: not a readable image: the file is empty") == 1
    assert output.count("PANet, Denoising") == 2, "both processes have something to do"
    assert output.count("11 of 12 restored by 2 processes") == output.count("1 of 12 failed") == 1

    # The second is killed at its second batch; the first then does not wait for it.
    first, second = srun()
    killed = run_script("tests/tools/killed.py", restoring(pictures, "srun"), second)
    assert killed.returncode == -9, killed
    left = len(contents(pictures / "srun"))
    assert left == 2
    done = run_script("tests/tools/killed.py", restoring(pictures, "srun"), first)
    restored = len(contents(pictures / "srun"))
    assert left < restored < 11
    assert done.returncode == 1
    assert f"{restored} of 12 restored by 2 processes" in done.stdout
    # The file that is no image was the second's, too.
    assert (
        done.stderr.count("process 1 exited early; run the same command with --skip-existing to restore")
        == 12 - restored
    )

    again = run_together("tools/restore.py", restoring(pictures, "srun"), srun("1"))
    assert [one.returncode for one in again] == [1, 0], again
    assert contents(pictures / "srun") == expected
    assert "11 of 12 restored by 2 processes" in again[0].stdout and "restored by" not in again[1].stdout
    skipped = sum(int(one.stdout.split(" skipped")[0].split()[-1]) for one in again if " skipped" in one.stdout)
    assert skipped == restored
    assert {path.name for path in pictures.iterdir()} == {"in", "net.safetensors", "one", "torchrun", "srun"}


def test_a_list_has_no_place_in_several_processes(pictures):
    done = run_script("tools/restore.py", ["-", *restoring(pictures, "out")[1:]], srun()[1])
    assert "error: -: several processes cannot share a list" in done.stderr
    assert done.returncode == 1
    assert not (pictures / "out").exists()


def test_comparing_in_two_processes(run_tool, tmp_path):
    """The table is that of one process, and is printed once; of a process that was killed the first does the work."""
    torch.manual_seed(0)
    write_checkpoint(PAEDSR(2, mid_channels=8, num_blocks=1, attention={"levels": 2}), tmp_path / "net.pth")
    arguments = (
        *("--task", "sr", "--scale", "2", "--data", make_set(tmp_path / "Set5"), "--save-images"),
        *("--methods", "bicubic", f"net={tmp_path / 'net.pth'}", "--out"),
    )
    run_tool("compare.py", *arguments, tmp_path / "one")
    expected = contents(tmp_path / "one")
    assert len([name for name in expected if name.startswith("images/")]) == 2 * len(PICTURES)

    both = run_together("tools/compare.py", [*arguments, tmp_path / "two"], srun())
    assert [one.returncode for one in both] == [0, 0], both
    assert contents(tmp_path / "two") == expected
    page = expected["comparison.md"].decode()
    assert page in both[0].stdout and "bicubic" not in both[1].stdout

    first, second = (environment | {"TOOL": "compare"} for environment in srun())
    arguments = [*arguments, tmp_path / "three"]
    assert run_script("tests/tools/killed.py", arguments, second).returncode == -9
    assert len(contents(tmp_path / "three")) < len(expected)
    done = run_script("tests/tools/killed.py", arguments, first)
    assert done.returncode == 0 and page in done.stdout, done
    assert contents(tmp_path / "three") == expected
    shutil.rmtree(tmp_path / "three")
    assert {path.name for path in tmp_path.iterdir()} == {"Set5", "net.pth", "one", "two"}
