"""Training and scoring one setting with one seed, in a process of its own that may end at any moment."""

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
        setting: What is trained.
        folder: Where: the framework's logs and checkpoints, ``setting.json`` (the config) and ``console.log``.
        task: What it is scored by.
        sets: What it is scored on.
        cache: Folder of earlier scores.
        threads: Of the computation.
        device: Where the network runs when it is scored.
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
            AblationError: If a run of another setting is there.
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
                f"{self.folder} holds a run of another setting; delete it to train it again, or choose another folder. "
                f"Changed since:{changes}"
            )

    def checkpoint(self) -> Path | None:
        """Return the checkpoint of the whole training, if it is finished."""
        path = self.folder / f"iter_{self.setting.config().train_cfg.max_iters}.pth"
        return path if is_whole(path) else None

    def carry_out(self) -> list[Score]:
        """Train, or go on, or do nothing if that is done; then score."""
        torch.set_num_threads(self.threads)
        # Another command at the same run is waited for, and its dying workers.
        with locked(self.folder):
            self.check()
            if self.checkpoint() is None:
                self._train()
        checkpoint = self.checkpoint()
        if checkpoint is None:
            raise AblationError(f"{self.folder}: the training ended before its time; see console.log there")
        method = checkpoint_method(self.setting.name, checkpoint, device=self.device)
        return compare(self.task, self.sets, [method], cache=self.cache, workers=self.threads)

    def _train(self) -> None:
        from panet_plugin.frameworks.mmagic.run import train  # Registers everything: only where something is trained.

        write_bytes(self.folder / "setting.json", (json.dumps(self.setting.fingerprint(), indent=1) + "\n").encode())
        train(self.setting.base, work_dir=self.folder, resume=True, options=self.setting.overrides)


def in_process(function: Callable[..., T], *arguments: Any, log: Path | None = None) -> T:
    """Call a function in a fresh process, which ends when this one does, and return its result.

    Args:
        function: Of a module, or a method.
        *arguments: Its arguments.
        log: What the process prints is appended here: that of several at once would be unreadable.

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
    """Return one line for every value that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            line
            for key in keys
            for line in _differences(old.get(key, "nothing"), new.get(key, "nothing"), f"{path}.{key}".lstrip("."))
        ]
    return [] if old == new else [f"{path}: {old!r}, now {new!r}"]
