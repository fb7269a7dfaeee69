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

import panet_plugin.frameworks.mmagic  # noqa: F401 - a config that does not import the bridge finds it all the same
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
    """Train as a config says.

    Args:
        config: A MMEngine config.
        work_dir: Where logs and checkpoints go; otherwise the config's, or ``work_dirs/<name of the config>``, with
            the overrides of its task in the name.
        resume: Continue from the newest whole checkpoint in ``work_dir``, if there is one. Otherwise ``load_from`` of
            the config may be a checkpoint or the work dir of another training, whose newest checkpoint it stands for.
        launcher: ``"none"``, or what started the processes of distributed training: ``"pytorch"`` or ``"slurm"``.
        options: Overrides of the config, by dotted name. What depends on ``task`` follows ``task.<parameter>``.

    Raises:
        FileNotFoundError: If ``load_from`` is no checkpoint and no work dir with one.
        CheckpointError: If a checkpoint is damaged, or holds more than data.
        TrainingError: If another training uses ``work_dir``, the first batch for a network of ours is not RGB in
            [0, 1], or ``max_nonfinite_steps`` of the config (10, 0 for any number) steps in a row had a loss or
            gradient that is not finite.
        SystemExit: With 128 + the signal's number after SIGTERM, SIGINT or SIGUSR1, once the step is done and a
            checkpoint is written. A second SIGTERM or SIGINT ends the process at once.
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
        # What training sees in its patches is what its validation sees in whole images.
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
        config: A MMEngine config.
        checkpoint: Weights of the config's generator, in any form that
            :func:`panet_plugin.weights.read_state_dict` reads.
        work_dir: Where logs go.
        launcher: What started the processes.
        options: Overrides of the config.
        window: Of attention, see :class:`~panet_plugin.inference.Restorer`.

    Returns:
        The metrics by name.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or not that of the config's generator.
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
    """Return a checkpoint, or the newest one of a training, whose work dir may be given instead."""
    if not path.is_dir():
        if not path.suffix:
            raise FileNotFoundError(
                f"{path}: no such folder, expected by load_from: train what this config starts from"
            )
        return path
    if (newest := newest_checkpoint(path)) is None:
        raise FileNotFoundError(f"{path}: load_from expects the work dir of a training, but there is no checkpoint yet")
    return newest


class _Scores(Hook):
    """Keep what a test found: MMagic's test loop tells it to hooks alone."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = metrics or {}


def _load(config: Path, work_dir: Path | None, options: Mapping[str, Any] | None) -> Config:
    cfg = Config.fromfile(config)
    if data_root := (options or {}).get("data_root"):
        # A variable of the configs; MMEngine has put its value in place already.
        for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
            if loader in cfg:
                cfg[loader].dataset.data_root = str(data_root)
    changed = task_overrides(options or {})
    if changed and "task" not in cfg:
        raise ConfigError(f"{config}: it has no task that task.{next(iter(changed))} can override")
    override(cfg, options or {}, config)
    if changed:
        _follow_task(cfg, changed)
    for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if cfg.get(name) and not cfg[name].get("num_workers"):
            cfg[name].persistent_workers = False  # PyTorch has no such thing without worker processes
    if cfg.get("optim_wrapper", {}).get("paramwise_cfg"):
        # PANet's residual blocks share one PReLU: MMEngine meets it once for each.
        cfg.optim_wrapper.paramwise_cfg.setdefault("bypass_duplicate", True)
    _shorten_warm_up(cfg)
    checkpoint = cfg.get("default_hooks", {}).get("checkpoint")
    if checkpoint and checkpoint.get("type") == "CheckpointHook":
        checkpoint.type = "WholeCheckpointHook"
    cfg.work_dir = str(work_dir or cfg.get("work_dir") or Path("work_dirs", name_of_run(config.stem, changed)))
    return cfg


def _follow_task(cfg: Config, changed: Mapping[str, Any]) -> None:
    """Change the data and the network with the parameters of the task, which MMEngine has put in place already."""
    task = make_task(**cfg.task)
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        dataset: Any = innermost_dataset(cfg.get(loader))
        if "task" in dataset:
            dataset.task.update(changed)
        elif "scale" in dataset:
            dataset.scale = task.scale
    follow_task(cfg.model.generator, task)


def _shorten_warm_up(cfg: Config) -> None:
    """Let a warm-up that would last more than half of the training be a tenth of it; what comes after begins there."""
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
        # MMEngine picks a CUDA device for every process; joining the group first keeps it from that.
        init_gloo(launcher)
        cfg.model_wrapper_cfg = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": cfg.get("find_unused_parameters", False),
            **(cfg.get("model_wrapper_cfg") or {}),
            "device_ids": None,
        }
    return Runner.from_cfg(cfg)
