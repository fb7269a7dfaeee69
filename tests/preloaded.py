"""Processes that have imported the large libraries already: a fork takes milliseconds, their import seconds.

Neither framework nor anything else of the project's stack that repairs it is among them, so what is imported when, and
in which state, is as in a process of its own.
"""

import functools
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = [
    *("torch", "torch.distributed.fsdp", "torch.distributed.optim", "torchvision", "sympy", "scipy.signal"),
    *("scipy.linalg", "scipy.ndimage", "scipy.special", "scipy.stats", "cv2", "matplotlib.pyplot", "PIL.Image"),
    *("lmdb", "requests", "tqdm", "yaml", "pytest"),
]


@functools.cache
def preloaded():
    """Return the context of multiprocessing that starts them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def run_script(script, arguments, environment):
    """Run a script as ``python SCRIPT ARGUMENTS`` at the root, and return what ``subprocess.run`` would.

    Args:
        script: Path of the script.
        arguments: Its arguments.
        environment: All of its environment.
    """
    (done,) = run_together(script, arguments, [environment])
    return done


def run_together(script, arguments, environments):
    """Run a script once with each of these environments, at the same time; see :func:`run_script`."""
    arguments = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        streams = [[Path(folder) / f"{name}{i}" for name in ("out", "err")] for i in range(len(environments))]
        processes = [
            preloaded().Process(target=_run, args=(str(script), arguments, dict(environment), streams[i]))
            for i, environment in enumerate(environments)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [
            subprocess.CompletedProcess([script, *arguments], process.exitcode, *(path.read_text() for path in paths))
            for process, paths in zip(processes, streams, strict=True)
        ]


def _run(script, arguments, environment, streams):
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    tests = str(ROOT / "tests")
    sys.path[:] = [str(Path(script).parent), *(path for path in sys.path if not path.startswith(tests))]
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
