"""Shared by all tests."""

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from preloaded import run_script
from skimage import data

from panet_plugin.data import prepare_set, write_image

# The same examples on every machine, however slow it is.
settings.register_profile("anywhere", deadline=None, derandomize=True)
settings.load_profile("anywhere")

# Several processes that test at once share the cores.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    """Skip what is marked ``gpu`` where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA GPU here: tools/check_gpu.py checks one"))


def pytest_collection_finish():
    """Leave the libraries out of every later garbage collection: MMEngine's datasets ask for full ones."""
    gc.freeze()


@pytest.fixture(scope="session")
def div2k(tmp_path_factory):
    """Return the root of a tiny DIV2K-shaped set of real images; DIV2K_ROOT names it."""
    root = tmp_path_factory.mktemp("div2k")
    pictures = {
        "train": {"astronaut": data.astronaut()[:288, :192], "coffee": data.coffee()[:288, :192]},
        "valid": {"chelsea": data.chelsea()[90:138, 120:180], "rocket": data.rocket()[100:160, 300:348]},
    }
    for subset, images in pictures.items():
        for name, image in images.items():
            write_image(root / "source" / subset / f"{name}.png", image)
        subimage = (192, 96) if subset == "train" else None
        prepare_set(root / "source" / subset, root, f"DIV2K_{subset}", subimage=subimage, folders=True)
    return root


@pytest.fixture
def set_matmul_precision():
    """Return the function that sets PyTorch's precision of float32 products; the default is restored."""
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def port():
    """Return a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def run_tool(div2k):
    """Return a function that runs a script of tools/ on the tiny set and returns what it printed."""

    def run(script, *arguments, code=0, **environment):
        env = {**os.environ, "DIV2K_ROOT": str(div2k), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment}
        if script.endswith(".sh"):
            command = ["bash", f"tools/{script}", *map(str, arguments)]
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        else:
            done = run_script(f"tools/{script}", arguments, env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run
