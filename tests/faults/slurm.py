"""A stand-in for Slurm with one node, this machine: ``slurm.py sbatch|srun|scontrol ARGUMENTS``.

Jobs run at once. In the third iteration of a training the time of its job is nearly over: all processes of its step get
the signal of ``sbatch --signal``. ``scontrol requeue`` lets sbatch start the script again.
"""

import os
import signal
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

#: The file that says that the job is to be started again.
QUEUE = Path(os.environ["QUEUE"])


def split(words):
    """Return the options before a command, ``--NAME=VALUE`` each, and the command."""
    options = list(takewhile(lambda word: word.startswith("--"), words))
    return dict(option.removeprefix("--").split("=", 1) for option in options), words[len(options) :]


def sbatch(*words):
    """Run a job to its end."""
    options, script = split(words)
    environment = {"SLURM_JOB_ID": "7", "SIGNAL": options["signal"].partition("@")[0]}
    status = subprocess.run(script, env={**os.environ, **environment}).returncode
    if QUEUE.exists():
        QUEUE.unlink()
        status = subprocess.run(script, env={**os.environ, **environment, "SLURM_RESTART_COUNT": "1"}).returncode
    return status


def srun(*words):
    """Run a step of a job, and return the highest exit code of its tasks."""
    options, (python, unbuffered, *command) = split(words)
    tasks, ends = {}, []
    for rank in range(int(options["ntasks"])):
        ours, theirs = socket.socketpair()
        environment = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NTASKS": options["ntasks"]}
        environment |= {"SLURM_NODELIST": "node", "STEP": theirs.fileno()}
        task = subprocess.Popen(
            [python, unbuffered, "tests/faults/faulty.py", *command],
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        tasks[task.pid] = task
        ends.append(ours)
    if all(end.recv(1) for end in ends):  # and none has gone on from later
        for task in tasks:
            os.killpg(task, signal.Signals[f"SIG{os.environ['SIGNAL']}"])
        for end in ends:
            end.send(b".")
    codes = []
    while tasks:
        task, status = os.wait()
        del tasks[task]
        code = os.waitstatus_to_exitcode(status)
        codes.append(128 - code if code < 0 else code)
        if code:
            for other in tasks:  # --kill-on-bad-exit
                os.killpg(other, signal.SIGKILL)
    return max(codes)


def scontrol(command, what, *_):
    """Show the names of hosts, or queue a job again."""
    if command == "show":
        print("127.0.0.1")
    else:
        assert (command, what) == ("requeue", "7")
        QUEUE.touch()
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](*sys.argv[2:]))
