"""The processes of a command started by torchrun or srun: their numbers, shares of the work, and results."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from panet_plugin.errors import PanetError
from panet_plugin.files import write_bytes

__all__ = ["Group", "Rank", "RankError", "join_group", "shares"]

#: Seconds between heartbeats of a process.
BEAT = 10.0
#: Seconds without a heartbeat after which a process counts as ended. Network file systems may lag by a minute.
SILENCE = 180.0


class RankError(PanetError, ValueError):
    """The environment variables do not identify this process among several."""


class Rank(NamedTuple):
    """A process among several.

    Attributes:
        number: Number of the process, from 0.
        world: Number of processes.
        local: Number of the process on its node.
    """

    number: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """Read the variables of torchrun (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``) or srun; without, a single process.

        A batch script of Slurm has similar variables, but is a single process, without ``SLURM_STEP_ID``.

        Raises:
            RankError: If a variable is missing or invalid.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if names[0] not in environment:
            names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
            script = "SLURM_JOB_ID" in environment and "SLURM_STEP_ID" not in environment
            if names[0] not in environment or script:
                return cls()
        texts = [environment.get(name, "") for name in names]
        rank = cls(*(int(text) if text.isdecimal() else -1 for text in texts))
        if not (0 <= rank.number < rank.world and rank.local >= 0):
            found = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
            raise RankError(f"expected number of the process, number of processes and number on the node, got {found}")
        return rank

    def device(self, name: str) -> str:
        """Return the device of this process; for ``"cuda"`` and several GPUs, its own."""
        import torch

        return f"cuda:{self.local % torch.cuda.device_count()}" if name == "cuda" and self.world > 1 else name


def shares(sizes: Sequence[float], world: int) -> list[list[int]]:
    """Distribute items to processes so that the sums of their sizes are similar; the same in every process.

    The largest first, each to the process with the least: no sum exceeds 4/3 of the optimum (Graham, 1969).

    Args:
        sizes: Sizes of the items, not negative.
        world: Number of processes.

    Returns:
        The indices of each process's items, in order.
    """
    dealt: list[list[int]] = [[] for _ in range(world)]
    sums = [0.0] * world
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        # On ties, the process with the fewest items: otherwise the first one would get all items of size 0.
        least = min(range(world), key=lambda rank: (sums[rank], len(dealt[rank])))
        dealt[least].append(index)
        sums[least] += sizes[index]
    return [sorted(indices) for indices in dealt]


class Group:
    """The processes of a command, which communicate through small files. Created by :func:`join_group`.

    Args:
        rank: This process.
        folder: Folder of the files; created here, and removed by the first process.
    """

    def __init__(self, rank: Rank, folder: Path) -> None:
        self.rank = rank
        self._folder = folder
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        if rank.world > 1:
            write_bytes(self._file(rank.number), b"")
            self._beats.start()

    def gather(self, report: Any, silence: float = SILENCE) -> list[Any] | None:
        """Report the result of this process; the first process waits for all others.

        Args:
            report: Any JSON value except None.
            silence: Seconds without a heartbeat after which another process counts as ended.

        Returns:
            In the first process, the reports of all in order, None for one that ended early; in the others, None.
        """
        if self.rank.number:
            self._say(report)
            return None
        reports = {0: report}
        seen: dict[int, tuple[int | None, float]] = {}
        while len(reports) < self.rank.world:
            time.sleep(min(1, silence))
            for number in set(range(self.rank.world)) - reports.keys():
                try:
                    content, sign = self._file(number).read_bytes(), self._file(number).stat().st_mtime_ns
                except FileNotFoundError:
                    content, sign = b"", None
                now = time.monotonic()
                if content:
                    reports[number] = json.loads(content)
                elif number not in seen or seen[number][0] != sign:
                    seen[number] = sign, now
                elif now - seen[number][1] >= silence:
                    reports[number] = None
        return [reports[number] for number in range(self.rank.world)]

    def close(self, failed: bool, asked: bool) -> None:
        """Remove the files; report a failure of this process to the others.

        Args:
            failed: Whether this process ended before its work was done.
            asked: Whether the launcher ended it, as it does with all processes when one fails.
        """
        if self.rank.world == 1:
            return
        if self.rank.number and not asked:
            if failed:
                self._say(None)
        else:
            self._stop_beats()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _say(self, report: Any) -> None:
        self._stop_beats()
        # The first process removes the folder when it ends.
        if self._folder.is_dir():
            write_bytes(self._file(self.rank.number), json.dumps(report).encode())

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            # The folder is gone if the first process has ended.
            with suppress(OSError):
                os.utime(self._file(self.rank.number))

    def _stop_beats(self) -> None:
        self._ended.set()
        self._beats.join()


@contextmanager
def join_group(out: Path) -> Iterator[Group]:
    """Join the processes that write one result; a single process forms its own group.

    SIGTERM from the launcher raises an exception, so that no partial files remain.

    Args:
        out: File or folder of the result on a shared disk; a hidden folder is created beside it meanwhile.

    Raises:
        RankError: See :meth:`Rank.of`.
        OSError: If files cannot be written.
    """
    rank, out = Rank.of(), out.absolute()
    asked = False

    def end(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)
        sys.exit(128 + number)

    # A single process needs no files.
    before = signal.signal(signal.SIGTERM, end) if rank.world > 1 else None
    one, failed = Group(rank, out.with_name(f".{out.name}.{_run()}.ranks") if rank.world > 1 else out), True
    try:
        yield one
        failed = False
    finally:
        one.close(failed, asked)
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _run() -> str:
    """Return a name that is common to the processes of this run and unique to it."""
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore

        store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
        # The first process's value is kept and returned to all.
        name = store.compare_set(f"panet {environment['TORCHELASTIC_RESTART_COUNT']}", "", uuid4().hex)
        return name.decode()
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "MASTER_PORT")
    return "-".join(environment.get(name, "0") for name in names)
