"""Two processes on gloo, through the scripts that users start."""

import re
import socket

import pytest
import small_runs

from panet_plugin.weights import load_official

FRAMEWORKS = ["mmagic", "basicsr"]


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_training_in_two_processes(framework, run_tool, tmp_path, port):
    output = run_tool(
        "dist_train.sh",
        small_runs.config(framework),
        2,
        "--work-dir",
        tmp_path,
        *small_runs.options(framework),
        PORT=port,
    )
    if framework == "mmagic":
        assert re.search(r"\[4/4\]", output)
        checkpoint = tmp_path / "iter_4.pth"
    else:
        checkpoint = tmp_path / "experiments/panet_x2_div2k/models/net_g_4.pth"
    load_official(checkpoint)
    tested = run_tool(
        "dist_test.sh",
        small_runs.config(framework),
        checkpoint,
        2,
        "--work-dir",
        tmp_path / "test",
        *small_runs.options(framework),
        PORT=port,
    )
    assert "PSNR" in tested or "psnr" in tested


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_averaged_gradients_are_those_of_the_global_batch(framework, run_tool, tmp_path, port):
    output = run_tool("dist_run.sh", 2, "tests/frameworks/gradients.py", framework, tmp_path, PORT=port)
    for rank in range(2):
        count = re.search(rf"rank {rank} of 2: (\d+) gradients agree", output)
        assert count, output
        assert int(count[1]) > 20
