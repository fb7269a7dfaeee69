"""Training and scoring one setting with one seed in its own process, which may be killed at any time."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch

from panet_plugin.ablation.settings import Setting
from panet_plugin.checkpoints import checkpoint_method
from panet_plugin.errors import AblationError
from panet_plugin.evaluation import ImageSet, Score, compare
from panet_plugin.files import locked, write_bytes
from panet_plugin.frameworks.trainings import is_whole
from panet_plugin.tasks import Task

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One training and its scores.

    Attributes:
        setting: The setting to train.
        folder: Folder of the framework's logs and checkpoints, ``setting.json`` (the config) and ``console.log``.
        task: The task that is scored.
        sets: Benchmark sets for scoring.
        cache: Folder of cached scores.
        threads: Number of threads.
        device: Device for scoring.
    """

    setting: Setting
    folder: Path
    task: Task
    sets: Sequence[ImageSet]
    cache: Path
    threads: int = 1
    device: str = "cpu"

    def check(self) -> None:
        """Compare the folder with the setting.

        Raises:
            AblationError: If it contains a run of another setting.
        """
        path, wanted = self.folder / "setting.json", self.setting.fingerprint()
        if not path.exists():
            return
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise AblationError(f"{path}: damaged ({error}); delete {self.folder} to train it again") from error
        if found != wanted:
            changes = "".join(f"\n  {line}" for line in _differences(found, wanted))
            raise AblationError(
                f"{self.folder} has a run of another setting; delete it to train it again, or choose another folder. "
                f"Changed since:{changes}"
            )

    def checkpoint(self) -> Path | None:
        """Return the final checkpoint if training is finished, otherwise None."""
        path = self.folder / f"iter_{self.setting.config().train_cfg.max_iters}.pth"
        return path if is_whole(path) else None

    def carry_out(self) -> list[Score]:
        """Train or continue training unless it is finished; then score."""
        torch.set_num_threads(self.threads)
        # Waits for another command with the same run, and for its terminating workers.
        with locked(self.folder):
            self.check()
            if self.checkpoint() is None:
                self._train()
        checkpoint = self.checkpoint()
        if checkpoint is None:
            raise AblationError(f"{self.folder}: training ended early; see console.log there")
        method = checkpoint_method(self.setting.name, checkpoint, device=self.device)
        return compare(self.task, self.sets, [method], cache=self.cache, workers=self.threads)

    def _train(self) -> None:
        from panet_plugin.frameworks.mmagic.run import train  # registers everything, so only where needed

        write_bytes(self.folder / "setting.json", (json.dumps(self.setting.fingerprint(), indent=1) + "\n").encode())
        train(self.setting.base, work_dir=self.folder, resume=True, options=self.setting.overrides)


def in_process(function: Callable[..., T], *arguments: Any, log: Path | None = None) -> T:
    """Call a function in a new process, which ends with this one, and return its result.

    Args:
        function: A function of a module, or a method.
        *arguments: Its arguments.
        log: File to which the process's output is appended: that of parallel processes would be mixed up.

    Raises:
        AblationError: If the process is killed.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(log,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            where = f"; see {log}" if log else ""
            raise AblationError(f"a process was killed, possibly out of memory{where}") from error


def _begin(log: Path | None) -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return a line for every value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in _differences(old.get(key, "nothing"), new.get(key, "nothing"), f"{path}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{path}: {old!r}, now {new!r}"]
