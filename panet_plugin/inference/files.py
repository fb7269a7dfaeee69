"""Restoring image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from panet_plugin.data.image_reader import BadImageError, read_head
from panet_plugin.data.image_writer import check_format
from panet_plugin.inference.buffers import Buffers, image_buffers
from panet_plugin.inference.jobs import Failure, Job
from panet_plugin.inference.plan import Plan, TooLargeError
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
    """Restore images; those of one size together. An error with one does not stop the others.

    EXIF data and ICC profiles are kept, alpha is kept or enlarged, and images are turned upright. Results are written
    atomically.

    Args:
        restorer: Restores the images.
        jobs: See :func:`~panet_plugin.inference.jobs.find_jobs`.
        task: Task of the network, if known; see :func:`~panet_plugin.inference.adapt`.
        report: Receives a line for every image size with the plan and its cost, and notes on what was lost.
        progress: Show a progress bar.

    Returns:
        The images that were not restored, with the reasons.
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
        report(f"note: {note}" + (f" ({count} images)" if count > 1 else ""))
    return run.failures


def restored_together(jobs: Sequence[Job], batch: int) -> list[tuple[list[Job], int]]:
    """Return groups of images to keep together, so that batches are those of a single process, and their pixels.

    Args:
        jobs: See :func:`restore_files`.
        batch: Maximum batch size.

    Returns:
        Groups of up to ``batch`` images of one kind; unreadable files are groups of their own with 0 pixels.
    """
    kinds: dict[_Kind, list[Job]] = {}
    groups: list[tuple[list[Job], int]] = []
    for job in jobs:
        try:
            head = read_head(job.source)
            kind = _Kind(head.height, head.width, image_buffers(head, job.target.suffix))
            kinds.setdefault(kind, []).append(job)
        except (ValueError, OSError):
            groups.append(([job], 0))
    for kind, alike in kinds.items():
        for first in range(0, len(alike), batch):
            group = alike[first : first + batch]
            groups.append((group, len(group) * kind.height * kind.width))
    return groups


class _Kind(NamedTuple):
    """The properties that images restored together have in common."""

    height: int
    width: int
    buffers: Buffers


class _Run:
    """State of a call of :func:`restore_files`."""

    def __init__(self, restorer: Restorer, task: Task | None, report: Callable[[str], None]) -> None:
        self._restorer = restorer
        self._task = task
        self._report = report
        self.failures: list[Failure] = []
        self.notes: Counter[str] = Counter()

    def by_kind(self, jobs: Sequence[Job]) -> dict[_Kind, list[Job]]:
        """Group images of the same kind."""
        groups: dict[_Kind, list[Job]] = {}
        for job in jobs:
            try:
                head = read_head(job.source)
                # Checked before the work begins.
                check_format(job.target.suffix, head.height * self._scale, head.width * self._scale)
                fixed = self._task is not None and self._task.fixed_channels
                buffers = image_buffers(head, job.target.suffix, self._scale, fixed)
                groups.setdefault(_Kind(head.height, head.width, buffers), []).append(job)
            except (ValueError, OSError) as error:
                self._fail(job, error)
        return groups

    def chunks(self, kind: _Kind, jobs: list[Job]) -> Iterator[tuple[list[Job], Plan]]:
        """Make a plan for a kind of images, and yield batches with the plan."""
        try:
            plan = self._restorer.plan(*kind)
        except (RuntimeError, ValueError, MemoryError) as error:
            for job in jobs:
                self._fail(job, error)
            return
        count = f"{len(jobs)} images" if len(jobs) > 1 else str(jobs[0].source)
        self._report(f"{count} of {kind.width}x{kind.height}: {plan}")
        # The tiles and pieces of a single image already form batches.
        together = plan.layout.batch if plan.layout.mode == "whole" else 1
        for first in range(0, len(jobs), together):
            yield jobs[first : first + together], plan

    def restore(self, jobs: list[Job], plan: Plan, progress: Callable[[int], None]) -> None:
        """Restore images together; one by one if that fails."""
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
        """Restore images together and record failures; return False if they should be tried one by one."""
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
        # Networks may raise any error, most often for lack of memory.
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
