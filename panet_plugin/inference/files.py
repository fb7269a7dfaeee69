"""Restoring picture files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from panet_plugin.data.pictures import BadImageError, read_head
from panet_plugin.inference.jobs import Failure, Job
from panet_plugin.inference.pictures import check_format, picture_buffers
from panet_plugin.inference.plan import Buffers, Plan, TooLargeError
from panet_plugin.inference.restoration import Restoration
from panet_plugin.inference.restorer import Restorer
from panet_plugin.tasks import Task


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    task: Task | None = None,
    *,
    report: Callable[[str], None] = print,
    progress: bool = False,
) -> list[Failure]:
    """Restore pictures; those of one size together. What goes wrong with one does not stop the rest.

    EXIF data and ICC profiles are kept, alpha is kept or enlarged along, and pictures are turned upright. Every result
    is either whole or not there.

    Args:
        restorer: What restores them.
        jobs: See :func:`~panet_plugin.inference.jobs.find_jobs`.
        task: Of the network, if known; see :func:`~panet_plugin.inference.adapt`.
        report: Is given a line for every size of pictures, with what was chosen and what it costs, and what was lost.
        progress: Show a bar.

    Returns:
        The pictures that were not restored, and why.
    """
    run = _Run(restorer, task, report)
    bar_format = "{l_bar}{bar}| {n:.1f}/{total_fmt} [{elapsed}<{remaining}]"
    with tqdm(total=len(jobs), disable=not progress, bar_format=bar_format) as bar:
        groups = run.by_kind(jobs)
        done = len(run.failures)
        for kind, group in groups.items():
            for chunk, plan in run.chunks(kind, group):
                run.restore(chunk, plan, partial(_advance, bar, 1 / plan.pixels))
                done += len(chunk)
                bar.update(done - bar.n)
    for note, count in run.notes.items():
        report(f"note: {note}" + (f" ({count} pictures)" if count > 1 else ""))
    return run.failures


def restored_together(jobs: Sequence[Job], batch: int) -> list[tuple[list[Job], int]]:
    """Return groups of pictures that must not be parted if the batches are to be those of all jobs, and their pixels.

    Args:
        jobs: See :func:`restore_files`.
        batch: The most pictures that a network is given at once.

    Returns:
        Groups of up to ``batch`` pictures of one kind, and alone, without pixels, what is no picture.
    """
    kinds: dict[_Kind, list[Job]] = {}
    groups: list[tuple[list[Job], int]] = []
    for job in jobs:
        try:
            head = read_head(job.source)
            kind = _Kind(head.height, head.width, picture_buffers(head, job.target.suffix))
            kinds.setdefault(kind, []).append(job)
        except (ValueError, OSError):
            groups.append(([job], 0))
    for kind, alike in kinds.items():
        for first in range(0, len(alike), batch):
            group = alike[first : first + batch]
            groups.append((group, len(group) * kind.height * kind.width))
    return groups


class _Kind(NamedTuple):
    """What pictures have in common that are restored together."""

    height: int
    width: int
    buffers: Buffers


class _Run:
    """What has happened so far."""

    def __init__(self, restorer: Restorer, task: Task | None, report: Callable[[str], None]) -> None:
        self._restorer = restorer
        self._task = task
        self._report = report
        self.failures: list[Failure] = []
        self.notes: Counter[str] = Counter()

    def by_kind(self, jobs: Sequence[Job]) -> dict[_Kind, list[Job]]:
        """Group pictures that are restored alike."""
        groups: dict[_Kind, list[Job]] = {}
        for job in jobs:
            try:
                head = read_head(job.source)
                # Before all the work.
                check_format(job.target.suffix, head.height * self._scale, head.width * self._scale)
                fixed = self._task is not None and self._task.fixed_channels
                buffers = picture_buffers(head, job.target.suffix, self._scale, fixed)
                groups.setdefault(_Kind(head.height, head.width, buffers), []).append(job)
            except (ValueError, OSError) as error:
                self._fail(job, error)
        return groups

    def chunks(self, kind: _Kind, jobs: list[Job]) -> Iterator[tuple[list[Job], Plan]]:
        """Plan for a kind, and yield as many pictures as are restored together."""
        try:
            plan = self._restorer.plan(*kind)
        except (RuntimeError, ValueError, MemoryError) as error:
            for job in jobs:
                self._fail(job, error)
            return
        count = f"{len(jobs)} pictures" if len(jobs) > 1 else str(jobs[0].source)
        self._report(f"{count} of {kind.width}x{kind.height}: {plan}")
        # Tiles and pieces of one picture are batches already.
        together = plan.layout.batch if plan.layout.mode == "whole" else 1
        for first in range(0, len(jobs), together):
            yield jobs[first : first + together], plan

    def restore(self, jobs: list[Job], plan: Plan, progress: Callable[[int], None]) -> None:
        """Restore some pictures together; one by one if that fails."""
        opened = []
        for job in jobs:
            try:
                opened.append(Restoration(job, self._restorer.channels, self._scale, self._task))
            except (BadImageError, OSError, ValueError, MemoryError) as error:
                self._fail(job, error)
        # A file may have changed since its size was read.
        if len({one.size for one in opened}) > 1 or not self._attempt(opened, plan, progress):
            for one in opened:
                self._attempt([one], plan, progress)

    def _attempt(self, opened: list[Restoration], plan: Plan, progress: Callable[[int], None]) -> bool:
        """Return False if several pictures should be tried one by one; what goes wrong with one is noted."""
        if not opened:
            return True
        channels, size = self._restorer.channels, opened[0].size

        def read(rows: slice, columns: slice) -> Tensor:
            images = torch.empty(len(opened), channels, rows.stop - rows.start, columns.stop - columns.start)
            for one, image in zip(opened, images.numpy(), strict=True):
                one.read(image, rows, columns)
            return images

        try:
            for top, left, images in self._restorer.restore_parts(read, channels, size, plan.layout, progress):
                for one, image in zip(opened, images.numpy(), strict=True):
                    one.take(image, top, left)
        # Networks fail in any way, and above all for want of memory.
        except Exception as error:
            if len(opened) == 1:
                self._fail(opened[0].job, error)
            return len(opened) == 1
        del images, image
        for one in opened:
            try:
                self.notes.update(dict.fromkeys(one.write(), 1))
            except (OSError, ValueError, MemoryError) as error:
                self._fail(one.job, error)
        return True

    @property
    def _scale(self) -> int:
        return self._restorer.scale

    def _fail(self, job: Job, error: BaseException) -> None:
        self.failures.append(Failure(str(job.source), _reason(job, error)))


def _advance(bar: tqdm, each: float, seen: int) -> None:
    bar.update(each * seen)


def _reason(job: Job, error: BaseException) -> str:
    text = str(error).removeprefix(f"{job.source}: ").split("\n")[0]
    if isinstance(error, TooLargeError):
        return f"{text} (--max-memory)"
    if isinstance(error.__cause__, Image.DecompressionBombError):
        return f"{text}; --max-pixels allows more"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return f"out of memory; try --max-memory or a smaller --tile ({text})"
    return text if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {text}"
