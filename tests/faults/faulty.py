"""Like ``python SCRIPT ARGUMENTS``, a training, with a fault in its third iteration: ``faulty.py SCRIPT ARGUMENTS``.

``DIES="RANK MARK"`` kills the process of that rank, once: the file ``MARK`` says that it was. ``STEP=FD`` tells the
other end of a socket that the iteration has come, and waits for an answer.
"""

import importlib
import os
import runpy
import signal
import sys
from pathlib import Path


def die(rank, mark):
    """Kill this process if it is the one, and was not killed before."""
    if os.environ["RANK"] == rank and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def tell(step):
    """Wait for what others do in this moment."""
    os.write(step, b".")
    os.read(step, 1)


def in_third_iteration(act):
    """Act before a step of the training, of either framework."""
    if any(word.endswith(".py") for word in sys.argv[1:]):
        hook = importlib.import_module("panet_plugin.frameworks.mmagic.hooks").SayPatch
        hook.before_train_iter = lambda self, runner, *args, **kwargs: runner.iter + 1 == 3 and act()
    else:
        importlib.import_module("panet_plugin.frameworks.basicsr")
        model = importlib.import_module("panet_plugin.frameworks.basicsr.models").RestorationModel
        optimize = model.optimize_parameters

        def step(self, current_iter):
            if current_iter == 3:
                act()
            optimize(self, current_iter)

        model.optimize_parameters = step


if __name__ == "__main__":
    del sys.argv[0]
    if dies := os.environ.get("DIES"):
        in_third_iteration(lambda: die(*dies.split()))
    if step := os.environ.get("STEP"):
        in_third_iteration(lambda: tell(int(step)))
    runpy.run_path(sys.argv[0], run_name="__main__")
