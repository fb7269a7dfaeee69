"""The processes that torchrun or srun started for one command: which is this, what is its share, what became of all."""

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

#: Seconds between two signs of life of a process.
BEAT = 10.0
#: Seconds without a sign after which a process counts as ended. Network file systems show a change a minute late.
SILENCE = 180.0


class RankError(PanetError, ValueError):
    """Variables of the environment that do not say which of several processes this is."""


class Rank(NamedTuple):
    """One of several processes.

    Attributes:
        number: From 0.
        world: How many there are.
        local: Its number on its node.
    """

    number: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Rank:
        """Return what torchrun (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``) says, or srun, or that there is one process.

        A batch script of Slurm has variables like those of srun, but is one process, without ``SLURM_STEP_ID``.

        Raises:
            RankError: If a variable is missing or no number in its range.
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
            said = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
            raise RankError(f"expected the number of a process, how many there are and its number here, got {said}")
        return rank

    def device(self, name: str) -> str:
        """Return the device of this process: of several GPUs, where ``"cuda"`` alone is asked for, its own."""
        import torch

        return f"cuda:{self.local % torch.cuda.device_count()}" if name == "cuda" and self.world > 1 else name


def shares(sizes: Sequence[float], world: int) -> list[list[int]]:
    """Deal things to processes so that the sums of their sizes are close; the same in every process.

    The largest first, each to who has the least: no sum is above 4/3 of the smallest possible maximum (Graham, 1969).

    Args:
        sizes: Of the things, not negative.
        world: How many processes there are.

    Returns:
        For every process the indices of its things, in order.
    """
    dealt: list[list[int]] = [[] for _ in range(world)]
    sums = [0.0] * world
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        # Among equals the one with the fewest, or all things of no size would be the first one's.
        least = min(range(world), key=lambda rank: (sums[rank], len(dealt[rank])))
        dealt[least].append(index)
        sums[least] += sizes[index]
    return [sorted(indices) for indices in dealt]


class Group:
    """All processes of a command, through small files that they share. Made by :func:`join_group`.

    Args:
        rank: This process.
        folder: Of the files; is made, and is the first process's to remove.
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
        """Say how this process ended, and in the first one wait for all others.

        Args:
            report: Anything that JSON knows, except None.
            silence: Seconds without a sign of life after which another process counts as ended.

        Returns:
            In the first process the reports of all, in order, None for one that ended without; in the others None.
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
        """Leave nothing behind; the others learn it if this process failed.

        Args:
            failed: Whether this process ends before its work is done.
            asked: Whether the launcher ended it, as it does with all processes when one has failed.
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
        # Gone where the first process has ended already.
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
    """Join the processes that write one result; alone if there is but one.

    Where the launcher ends this process by SIGTERM, that is an exception, so that nothing half-written stays.

    Args:
        out: File or folder of the result, on a disk that all share; a hidden folder lies beside it meanwhile.

    Raises:
        RankError: See :meth:`Rank.of`.
        OSError: If there can be no files.
    """
    rank, out = Rank.of(), out.absolute()
    asked = False

    def end(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)
        sys.exit(128 + number)

    # One process alone does what it always did.
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
    """Return a name that the processes of this run have in common, and no other run."""
    environment = os.environ
    if environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore

        store = TCPStore(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]), is_master=False)
        # The first one's word is kept, and told to all.
        name = store.compare_set(f"panet {environment['TORCHELASTIC_RESTART_COUNT']}", "", uuid4().hex)
        return name.decode()
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "MASTER_PORT")
    return "-".join(environment.get(name, "0") for name in names)
