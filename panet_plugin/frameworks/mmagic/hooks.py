"""Hooks of MMEngine's Runner for fault-tolerant training."""

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from panet_plugin import archs
from panet_plugin.files import write_bytes
from panet_plugin.frameworks.first_batch import check_first_batch
from panet_plugin.frameworks.trainings import (
    Interruption,
    NonFinite,
    all_finite,
    is_whole,
    must_be_finite,
    report_resumed,
)
from panet_plugin.weights import PATCH, CheckpointError

logger = logging.getLogger(__name__)

#: Keys for the order of a sample's channels.
_ORDERS = ("img_channel_order", "gt_channel_order")
#: Keys for the name of a sample's image, in order of preference.
_NAMES = ("key", "gt_path", "img_path")


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook, with the same arguments, that can be killed at any time without losing checkpoints.

    Files are written atomically, by renaming; those that ``max_keep_ckpts`` or a better score make obsolete are removed
    afterward. Nonfinite weights are not written.

    Raises:
        OSError: If a checkpoint cannot be written; earlier ones are kept.
        TrainingError: If the weights are not finite.
    """

    file_backend: Any

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        must_be_finite(_bare(runner), Path(self.out_dir, self.filename_tmpl.format(step)))
        work_dir = runner.work_dir
        with self._removing_afterwards(), TemporaryDirectory() as elsewhere:
            # MMEngine writes `last_checkpoint` in place, truncating it first.
            runner._work_dir = elsewhere
            try:
                super()._save_checkpoint_with_step(runner, step, meta)
            finally:
                runner._work_dir = work_dir
        if is_main_process():
            write_bytes(Path(work_dir, "last_checkpoint"), str(self.last_ckpt).encode())

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._removing_afterwards():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        backend: Any = self.file_backend
        removed: list[str] = []
        self.file_backend = _Keeping(backend, removed)
        try:
            yield
        finally:
            self.file_backend = backend
        for path in removed:
            backend.remove(path)


class _Keeping:
    """A file backend that only records the files to remove."""

    def __init__(self, backend: Any, removed: list) -> None:
        self._backend, self._removed = backend, removed

    def remove(self, path: str) -> None:
        self._removed.append(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def newest_checkpoint(work_dir: Path) -> Path | None:
    """Return the newest complete checkpoint of a work dir, None if there is none.

    ``last_checkpoint`` is not used: it may name a missing file.
    """
    numbered = [(re.fullmatch(r"(?:iter|epoch)_(\d+)\.pth", path.name), path) for path in work_dir.glob("*.pth")]
    for _, path in sorted(((int(found[1]), path) for found, path in numbered if found), reverse=True):
        if is_whole(path):
            return path
        logger.warning("%s is incomplete; looking for an older one", path)
    return None


class SayPatch(Hook):
    """Records the size of the training patches in checkpoints."""

    def __init__(self, patch: int | None) -> None:
        self._patch = patch

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the size."""
        if self._patch is not None:
            checkpoint[PATCH] = self._patch


class ReportResumed(Hook):
    """Logs which settings of resumed training are from the checkpoint and which from the config."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare both, before the checkpoint's are loaded.

        Raises:
            CheckpointError: If training cannot be resumed from it.
            TrainingError: If its schedule has another type than the config's.
        """
        if not runner._resume:
            return
        if missing := {"meta", "message_hub", "optimizer", "param_schedulers"} - checkpoint.keys():
            raise CheckpointError(
                f"{runner._load_from}: cannot resume training without {', '.join(sorted(missing))}: expected a "
                "checkpoint of MMEngine with optimizer and schedule"
            )
        wrapper: Any = runner.optim_wrapper
        schedules: Any = runner.param_schedulers
        report_resumed(
            checkpoint["meta"]["iter"],
            [wrapper.optimizer.state_dict()],
            [schedule.state_dict() for schedule in schedules],
            [checkpoint["optimizer"]],
            checkpoint["param_schedulers"],
        )


class CheckFirstBatch(Hook):
    """Checks the first batch after the data preprocessor."""

    def before_train(self, runner: Runner) -> None:
        """Install the check."""
        model = _bare(runner)
        preprocessor: Any = model.data_preprocessor
        certain = type(getattr(model, "generator", None)).__module__.startswith(f"{archs.__name__}.")

        def check(_: Any, given: tuple, batch: Any) -> None:
            handle.remove()
            samples = given[0].get("data_samples") if isinstance(given[0], Mapping) else None
            if not samples or not isinstance(batch["inputs"], Tensor):
                return
            about, final = samples[0].metainfo, getattr(preprocessor, "output_channel_order", None)
            orders = {str(final or about[key]).upper() for key in _ORDERS if key in about}
            mean, std = (getattr(preprocessor, name, torch.tensor([])).flatten().tolist() for name in ("mean", "std"))
            check_first_batch(
                batch["inputs"],
                getattr(batch["data_samples"], "gt_img", None),
                range_key=f"model.data_preprocessor with mean={mean} std={std}; 8-bit images require [0.0] and [255.0]",
                order_key="channel_order in train_dataloader.dataset, and model.data_preprocessor.output_channel_order",
                bgr="BGR" in orders,
                path=about.get("gt_path"),
                certain=certain,
            )

        handle = preprocessor.register_forward_hook(check)


class SaveWhenAsked(Hook):
    """After a signal, finishes the step, saves and exits. Processes of distributed training exit together."""

    priority = "LOWEST"

    def __init__(self, interruption: Interruption) -> None:
        self._interruption = interruption

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Check for a signal."""
        if self._interruption.asked(runner.iter + 1):
            self._save_and_leave(runner)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Check for a signal in validation, unless other processes take part in it."""
        if not self._interruption.number or is_distributed() or not hasattr(runner.train_loop, "dataloader_iterator"):
            return
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(runner)  # it has swapped in the averaged weights
        runner.train_loop._iter -= 1  # hooks save during an iteration, which is over
        self._save_and_leave(runner)

    def _save_and_leave(self, runner: Runner) -> NoReturn:
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                hook._save_checkpoint(runner)
                self._interruption.leave(hook.last_ckpt)
        self._interruption.leave("the last checkpoint, since there is no CheckpointHook")


class SkipNonFinite(Hook):
    """Skips steps with a nonfinite loss or gradient, and ends training after a number of them in a row.

    Args:
        most: See :class:`~panet_plugin.frameworks.trainings.NonFinite`.
    """

    def __init__(self, most: int) -> None:
        self._steps = NonFinite(most)
        self._batch: Any = None
        self._loss: Tensor | None = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Record the names of the images."""
        self._batch = data_batch

    def before_train(self, runner: Runner) -> None:
        """Monitor the optimizer."""
        wrapper: Any = runner.optim_wrapper
        if getattr(wrapper, "loss_scaler", None) is not None:
            return  # it skips such steps itself to find its scale
        update, step = wrapper.update_params, wrapper.step

        def watched_update(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            self._loss = loss.detach()
            update(loss, *args, **kwargs)

        @functools.wraps(step)  # keeps the attributes that schedulers set on it
        def watched_step(**kwargs: Any) -> None:
            gradients = (p.grad for group in wrapper.optimizer.param_groups for p in group["params"])
            finite = torch.tensor(int(all_finite([self._loss, *gradients])))
            if is_distributed():
                all_reduce(finite, "min")
            if not self._steps.skips(bool(finite), runner.iter + 1, _names(self._batch)):
                step(**kwargs)

        wrapper.update_params, wrapper.step = watched_update, watched_step


def _bare(runner: Runner) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _names(batch: Any) -> list[str]:
    samples = batch.get("data_samples", ()) if isinstance(batch, Mapping) else ()
    names = (next(filter(None, (getattr(sample, key, None) for key in _NAMES)), None) for sample in samples)
    return [str(name) for name in names if name]
