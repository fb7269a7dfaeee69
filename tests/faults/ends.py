"""Trainings of two processes that die or are stopped: a part of `make test-faults`."""

import os
import signal
import subprocess
import sys

import pytest
import small_runs
from preloaded import ROOT

FRAMEWORKS = ["mmagic", "basicsr"]
#: Other processes load the data, and outlive one that is killed.
WORKERS = {"mmagic": "train_dataloader.num_workers=1", "basicsr": "datasets.train.num_worker_per_gpu=1"}


def arguments(framework, work_dir, iterations=small_runs.ITERATIONS):
    """Return the arguments of tools/train.py for a run that is to be met by a fault."""
    options = small_runs.options(framework, iterations)
    return [small_runs.config(framework), "--work-dir", work_dir, *options, WORKERS[framework]]


def iterations(framework, work_dir):
    """Return those that have a checkpoint."""
    folder, pattern = (
        (work_dir, "iter_*.pth")
        if framework == "mmagic"
        else (work_dir / "experiments/panet_x2_div2k/training_states", "*.state")
    )
    return sorted(int(path.stem.removeprefix("iter_")) for path in folder.glob(pattern))


# Processes that die


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_is_named(framework, rank, run_tool, tmp_path, port):
    output = run_tool(
        "dist_run.sh",
        *(2, "tests/faults/faulty.py", "tools/train.py", "--launcher", "pytorch", *arguments(framework, tmp_path)),
        code=1,
        PORT=port,
        PYTHONPATH=str(ROOT),
        DIES=f"{rank} {tmp_path / 'died'}",
    )
    assert "Signal 9 (SIGKILL) received by PID" in output
    assert f"rank      : {rank} (local_rank: {rank})\n  exitcode  : -9" in output
    assert iterations(framework, tmp_path) == [2]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_restarts_go_on_from_the_last_checkpoint(framework, run_tool, tmp_path, port):
    output = run_tool(
        "dist_run.sh",
        *(2, "tests/faults/faulty.py", "tools/train.py", "--launcher", "pytorch", "--resume"),
        *arguments(framework, tmp_path),
        PORT=port,
        PYTHONPATH=str(ROOT),
        MAX_RESTARTS="1",
        DIES=f"0 {tmp_path / 'died'}",
    )
    assert (tmp_path / "died").exists()
    assert "resumed at iteration 2" in output
    assert iterations(framework, tmp_path) == [2, 4]


# Slurm


@pytest.fixture
def submit(div2k, tmp_path, port):
    """Return a function that submits a training in two tasks, and returns its exit code and output."""
    for name in ("sbatch", "srun", "scontrol"):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec "$PYTHON" tests/faults/slurm.py {name} "$@"\n')
        (tmp_path / name).chmod(0o755)

    def run(number, *words):
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "QUEUE": str(tmp_path / "queue"),
            "PYTHON": sys.executable,
        }
        environment |= {"DIV2K_ROOT": str(div2k), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"GPUS": "2", "GRES": "", "PORT": port}
        command = ["sbatch", f"--signal={number}@120", "tools/slurm_train.sh", "night", "panet", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_job_whose_time_is_over_is_queued_again(framework, submit, tmp_path):
    code, output = submit("USR1", *arguments(framework, tmp_path / "run", 12))
    assert code == 0, output
    assert output.count("ended by SIGUSR1; resume from") == output.count("resumed at iteration 10: ") == 1
    # The processes ask each other in every tenth iteration.
    assert iterations(framework, tmp_path / "run") == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_job_that_is_canceled_is_saved_and_not_queued_again(framework, submit, tmp_path):
    code, output = submit("TERM", *arguments(framework, tmp_path / "run", 12))
    assert code == 128 + signal.SIGTERM, output
    assert output.count("ended by SIGTERM; resume from") == 1
    assert "resumed" not in output
    assert iterations(framework, tmp_path / "run") == [2, 4, 6, 8, 10]
