"""Processes that are stopped in the midst of their work, however fast or busy the machine is."""

import os
import random
import signal


def stop_at_random_moments(start, times, undo=lambda: None, with_signal=signal.SIGKILL, code=-signal.SIGKILL):
    """Start processes and stop each at a random moment, until ``times`` of them were stopped.

    The moments follow the machine: later after a process that was stopped, earlier after one that had finished, whose
    work is undone. So some processes are stopped soon and some late, and the end is reached without a clock.

    Args:
        start: Starts a process and returns it.
        times: How many are to be stopped.
        undo: Called when a process had finished.
        with_signal: What stops them.
        code: Exit code of a stopped process; a finished one has 0.
    """
    draw, latest, stopped = random.Random(0), 0.05, 0
    while stopped < times:
        process = start()
        process.join(draw.uniform(0, latest))
        if process.is_alive():
            os.kill(process.pid, with_signal)
        process.join()
        assert process.exitcode in (0, code)
        if process.exitcode == code:
            stopped += 1
            latest *= 2
        else:
            latest /= 3
            undo()
