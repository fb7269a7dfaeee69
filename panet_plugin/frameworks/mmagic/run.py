"""Training and testing with MMEngine's Runner."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

import panet_plugin.frameworks.mmagic  # noqa: F401 - for configs that do not import the bridge
from panet_plugin.archs import attention_window
from panet_plugin.errors import ConfigError
from panet_plugin.frameworks.configs import override
from panet_plugin.frameworks.distributed import init_gloo
from panet_plugin.frameworks.mmagic.describe import innermost_dataset, patch_of_loader
from panet_plugin.frameworks.mmagic.hooks import (
    CheckFirstBatch,
    ReportResumed,
    SaveWhenAsked,
    SayPatch,
    SkipNonFinite,
    newest_checkpoint,
)
from panet_plugin.frameworks.task_overrides import follow_task, name_of_run, task_overrides
from panet_plugin.frameworks.trainings import MAX_NONFINITE_STEPS, Interruption, alone_in, logged_by
from panet_plugin.tasks import make_task
from panet_plugin.weights import load_weights, read_patch

logger = logging.getLogger(__name__)


def train(
    config: Path,
    *,
    work_dir: Path | None = None,
    resume: bool = False,
    launcher: str = "none",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Train from a config.

    Args:
        config: An MMEngine config.
        work_dir: Folder for logs and checkpoints; by default the config's, or ``work_dirs/<name of the config>`` with
            the overrides of the task in the name.
        resume: Continue from the newest complete checkpoint in ``work_dir``, if there is one. Otherwise, ``load_from``
            of the config may be a checkpoint, or a work dir whose newest checkpoint is loaded.
        launcher: ``"none"``, or the launcher of distributed training: ``"pytorch"`` or ``"slurm"``.
        options: Overrides of the config, by dotted name. Everything that depends on the task follows
            ``task.<parameter>``.

    Raises:
        FileNotFoundError: If ``load_from`` is neither a checkpoint nor a work dir with one.
        CheckpointError: If a checkpoint is damaged, or contains more than data.
        TrainingError: If another training run uses ``work_dir``, the first batch for a network of this project is not
            RGB in [0, 1], or ``max_nonfinite_steps`` of the config (default 10, 0 for no limit) steps in a row had a
            nonfinite loss or gradient.
        SystemExit: With 128 + the signal's number after SIGTERM, SIGINT or SIGUSR1, when the step is done and a
            checkpoint is written. A second SIGTERM or SIGINT ends the process immediately.
    """
    cfg = _load(config, work_dir, options)
    asked = resume or cfg.get("resume", False)
    last = newest_checkpoint(Path(cfg.work_dir)) if asked else None
    if asked and last is None:
        logger.warning("%s has no checkpoint to resume from; training starts from scratch", cfg.work_dir)
    cfg.resume = last is not None
    if last is not None:
        cfg.load_from = str(last)
    elif cfg.get("load_from"):
        cfg.load_from = str(_last_checkpoint(Path(cfg.load_from)))
    most = cfg.pop("max_nonfinite_steps", MAX_NONFINITE_STEPS)
    with alone_in(Path(cfg.work_dir)), Interruption().noted() as interruption:
        runner = _runner(cfg, launcher)
        # Validation on whole images uses attention windows of the size of the training patches.
        patch = patch_of_loader(cfg.get("train_dataloader"))
        hooks = (CheckFirstBatch(), SayPatch(patch), SkipNonFinite(most), SaveWhenAsked(interruption), ReportResumed())
        for hook in hooks:
            runner.register_hook(hook)
        with logged_by(runner.logger), attention_window(runner.model, "trained", patch):
            runner.train()


def test(
    config: Path,
    checkpoint: Path,
    *,
    work_dir: Path | None = None,
    launcher: str = "none",
    options: Mapping[str, Any] | None = None,
    window: int | str | None = "trained",
) -> dict[str, float]:
    """Score a checkpoint on a config's test data; arguments as :func:`train`.

    Args:
        config: An MMEngine config.
        checkpoint: Weights of the config's generator, in any form that
            :func:`panet_plugin.weights.read_state_dict` reads.
        work_dir: Folder for logs.
        launcher: Launcher of the processes.
        options: Overrides of the config.
        window: Window of attention, see :class:`~panet_plugin.inference.Restorer`.

    Returns:
        The metrics by name.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or not of the config's generator.
    """
    cfg = _load(config, work_dir, options)
    runner = _runner(cfg, launcher)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    load_weights(model.generator, checkpoint)
    scores = _Scores()
    runner.register_hook(scores)
    with attention_window(model, window, read_patch(checkpoint) or patch_of_loader(cfg.get("train_dataloader"))):
        runner.test()
    return scores.metrics


def _last_checkpoint(path: Path) -> Path:
    """Return a checkpoint, or the newest one in a work dir."""
    if not path.is_dir():
        if not path.suffix:
            raise FileNotFoundError(
                f"{path}: no such folder, expected by load_from: train the config from which this one starts"
            )
        return path
    if (newest := newest_checkpoint(path)) is None:
        raise FileNotFoundError(f"{path}: load_from expects a work dir with a checkpoint, but it contains none")
    return newest


class _Scores(Hook):
    """Keeps the results of a test, which MMagic's test loop passes only to hooks."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = metrics or {}


def _load(config: Path, work_dir: Path | None, options: Mapping[str, Any] | None) -> Config:
    cfg = Config.fromfile(config)
    if data_root := (options or {}).get("data_root"):
        # A variable of the configs, which MMEngine has already substituted.
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if loader in cfg:
                cfg[loader].dataset.data_root = str(data_root)
    changed = task_overrides(options or {})
    if changed and "task" not in cfg:
        raise ConfigError(f"{config}: no task to override with task.{next(iter(changed))}")
    override(cfg, options or {}, config)
    if changed:
        _follow_task(cfg, changed)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(name) and not cfg[name].get("num_workers"):
            cfg[name].persistent_workers = False  # PyTorch does not allow it without worker processes
    if cfg.get("optim_wrapper", {}).get("paramwise_cfg"):
        # PANet's residual blocks share one PReLU, which MMEngine finds once for each.
        cfg.optim_wrapper.paramwise_cfg.setdefault("bypass_duplicate", True)
    _shorten_warm_up(cfg)
    checkpoint = cfg.get("default_hooks", {}).get("checkpoint")
    if checkpoint and checkpoint.get("type") == "CheckpointHook":
        checkpoint.type = "WholeCheckpointHook"
    cfg.work_dir = str(work_dir or cfg.get("work_dir") or Path("work_dirs", name_of_run(config.stem, changed)))
    return cfg


def _follow_task(cfg: Config, changed: Mapping[str, Any]) -> None:
    """Update the data and the network for the parameters of the task, which MMEngine has already overridden."""
    task = make_task(**cfg.task)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        dataset: Any = innermost_dataset(cfg.get(loader))
        if "task" in dataset:
            dataset.task.update(changed)
        elif "scale" in dataset:
            dataset.scale = task.scale
    follow_task(cfg.model.generator, task)


def _shorten_warm_up(cfg: Config) -> None:
    """Shorten a warm-up of more than half of the training to a tenth; later schedules begin there."""
    iterations, schedulers = (cfg.get("train_cfg") or {}).get("max_iters"), cfg.get("param_scheduler")
    if not iterations or not isinstance(schedulers, list):
        return
    for warm_up in [scheduler for scheduler in schedulers if scheduler.type == "LinearLR"]:
        end = warm_up.get("end")
        if isinstance(end, int) and end > iterations // 2:
            for scheduler in schedulers:
                if scheduler.get("begin") == end:
                    scheduler.begin = max(1, iterations // 10)
            warm_up.end = max(1, iterations // 10)


def _runner(cfg: Config, launcher: str) -> Runner:
    cfg.launcher = launcher
    if launcher != "none" and not torch.cuda.is_available():
        # MMEngine would select a CUDA device for every process unless the group exists.
        init_gloo(launcher)
        cfg.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **(cfg.get("model_wrapper_cfg") or {}),
            "device_ids": None,
        }
    return Runner.from_cfg(cfg)
