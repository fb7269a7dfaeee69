"""Two processes on gloo, through the scripts that users start."""

import os
import re

import pytest
import small_runs
from preloaded import ROOT, run_together

from panet_plugin.weights import read_state_dict

FRAMEWORKS = ["mmagic", "basicsr"]


def ranks(div2k, port):
    """Return the environments that torchrun gives to two processes."""
    environment = {**os.environ, "DIV2K_ROOT": str(div2k), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**environment, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_training_in_two_processes(framework, run_tool, div2k, tmp_path, port):
    output = run_tool(
        "dist_train.sh",
        small_runs.config(framework),
        2,
        "--work-dir",
        tmp_path,
        *small_runs.options(framework),
        "auto_scale_lr.enable=True",
        PORT=port,
    )
    # 1e-4 for batches of 16; these have 2 * 2.
    assert re.search(r"\[1/4\] +lr: 2.5000e-05" if framework == "mmagic" else r"lr:\(2.500e-05,\)", output), output
    assert small_runs.validations(framework, output) == 3 - (framework == "mmagic")
    if framework == "mmagic":
        assert re.search(r"\[4/4\]", output)
        assert "GPU number: 2" in output
        checkpoint = tmp_path / "iter_4.pth"
    else:
        assert "World size (gpu number): 2" in output
        checkpoint = tmp_path / "experiments/panet_x2_div2k/models/net_g_4.pth"
    assert read_state_dict(checkpoint)
    options = ["--work-dir", tmp_path / "test", *small_runs.options(framework)]
    # Without the half minute that the script takes.
    arguments = [small_runs.config(framework), checkpoint, "--launcher", "pytorch", *options]
    done = run_together("tools/test.py", arguments, ranks(div2k, port))
    assert [rank.returncode for rank in done] == [0, 0], done
    tested = done[0].stdout + done[0].stderr
    assert re.search(r"Iter\(test\).* PSNR: [\d.]+" if framework == "mmagic" else r"# psnr: [\d.]+", tested)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_averaged_gradients_are_those_of_the_global_batch(framework, div2k, tmp_path, port):
    both = run_together("tests/frameworks/gradients.py", [framework, tmp_path], ranks(div2k, port))
    for rank, done in enumerate(both):
        count = re.search(rf"rank {rank} of 2: (\d+) gradients agree", done.stdout)
        assert count, done.stdout + done.stderr
        assert int(count[1]) > 20


@pytest.mark.parametrize(("script", "given"), [("train", ["CONFIG"]), ("test", ["CONFIG", "CHECKPOINT"])])
def test_several_nodes(run_tool, script, given):
    environment = {"NNODES": "3", "NODE_RANK": "2", "MASTER_ADDR": "10.0.0.1", "PORT": "1234", "PYTHON": "echo"}
    output = run_tool(f"dist_{script}.sh", *given, 8, "--more", **environment)
    for word in ("--nnodes=3", "--node_rank=2", "--master_addr=10.0.0.1", "--master_port=1234", "--nproc_per_node=8"):
        assert word in output
    assert output.rstrip().endswith(f"{script}.py {' '.join(given)} --launcher pytorch --more")


def test_restarts(run_tool):
    environment = {"MASTER_ADDR": "10.0.0.1", "PORT": "1234", "PYTHON": "echo"}
    output = run_tool("dist_train.sh", "CONFIG", 8, MAX_RESTARTS="3", **environment)
    for word in ("--max_restarts=3", "--rdzv_backend=c10d", "--rdzv_endpoint=10.0.0.1:1234", "--nproc_per_node=8"):
        assert word in output
    assert "restarts" not in run_tool("dist_train.sh", "CONFIG", 8, **environment)


@pytest.mark.parametrize(("gres", "expected"), [(None, "--gres=gpu:4 "), ("", "")])
def test_slurm(run_tool, tmp_path, gres, expected):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$MASTER_PORT: $@"\n')
    (tmp_path / "srun").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GPUS": "8", "GPUS_PER_NODE": "4", "PYTHON": "python"}
    environment |= {} if gres is None else {"GRES": gres}
    output = run_tool("slurm_train.sh", "night", "panet", "CONFIG", "--resume", **environment)
    assert output == (
        f"29500: --partition=night --job-name=panet {expected}--ntasks=8 --ntasks-per-node=4 --cpus-per-task=5 "
        "--kill-on-bad-exit=1 python -u tools/train.py CONFIG --launcher slurm --resume\n"
    )


@pytest.mark.parametrize(
    ("code", "restarts", "expected"),
    [
        (138, {}, "CONFIG --launcher slurm\nrequeue 7\n"),
        (138, {"SLURM_RESTART_COUNT": "1"}, "CONFIG --launcher slurm --resume\nrequeue 7\n"),
        (143, {}, "CONFIG --launcher slurm\n"),
        (0, {}, "CONFIG --launcher slurm\n"),
    ],
)
def test_a_job_of_slurm_is_queued_again_when_its_time_is_over(run_tool, tmp_path, code, restarts, expected):
    for name, ends in (("srun", code), ("scontrol", 0)):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@"\nexit {ends}\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **restarts}
    status = 0 if "requeue" in expected else code
    output = run_tool("slurm_train.sh", "night", "panet", "CONFIG", code=status, **environment)
    assert output.endswith(f"tools/train.py {expected}")


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_too_few_arguments(script, run_tool):
    assert "usage" in run_tool(script, code=2)
