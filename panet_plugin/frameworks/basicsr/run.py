"""Training and testing with BasicSR's pipelines."""

import logging
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.test import test_pipeline
from basicsr.train import train_pipeline
from mmengine.config import Config

from panet_plugin.data import missing_data
from panet_plugin.frameworks.basicsr.archs import build_arch
from panet_plugin.frameworks.basicsr.describe import patch_of_options
from panet_plugin.frameworks.basicsr.loading import numbered_samples
from panet_plugin.frameworks.bridges import unregistered
from panet_plugin.frameworks.configs import ConfigError, override, read_plain
from panet_plugin.frameworks.task_overrides import follow_task, name_of_run, task_overrides
from panet_plugin.frameworks.trainings import Interruption, alone_in, is_whole, logged_by
from panet_plugin.ranks import Rank
from panet_plugin.tasks import make_task
from panet_plugin.weights import CheckpointError, load_safely, load_weights, read_patch

logger = logging.getLogger(__name__)


def train(
    config: Path,
    *,
    work_dir: Path | None = None,
    resume: bool = False,
    launcher: str = "none",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Train from a BasicSR option file.

    Args:
        config: A ``.yml`` file; ``_base_`` and ``{{$VARIABLE:default}}`` are supported as in MMEngine's configs.
        work_dir: Folder for ``experiments/<name>`` and ``tb_logger/<name>``; by default the working directory.
        resume: Continue from the last complete training state in ``work_dir``, if there is one.
        launcher: ``"none"``, or the launcher of distributed training: ``"pytorch"`` or ``"slurm"``.
        options: Overrides of the options, by dotted name.

    Raises:
        FileNotFoundError: If a dataset does not exist.
        TrainingError: If another training run uses the experiment's folder; see also ``RestorationModel``.
        CheckpointError: If a checkpoint or training state is damaged, or contains more than data.
        SystemExit: With 128 + the signal's number after SIGTERM, SIGINT or SIGUSR1, once a ``RestorationModel`` has
            been saved.
    """
    opt = load_options(config, options)
    _scale_learning_rates(config, opt, launcher)
    root = Path(work_dir or ".").absolute()
    experiment = root / "experiments" / opt["name"]
    if resume and (state := last_state(experiment)):
        opt["path"]["resume_state"] = str(state)
    elif resume:
        logger.warning("%s has no training state to resume from; training starts from scratch", experiment)
    for key, weights in opt["path"].items():
        if key.startswith("pretrain_network") and weights:
            _read(weights)  # before BasicSR creates or renames folders
    # All processes must shuffle equally, even if the options do not set a seed.
    samples = numbered_samples(opt.get("manual_seed") or 0, *_position(opt["path"].get("resume_state")))
    log = logged_by(logging.getLogger("basicsr"))
    with alone_in(experiment), Interruption().noted(), _command_line(config, opt, launcher), samples, log:
        train_pipeline(str(root))


def test(
    config: Path,
    checkpoint: Path,
    *,
    work_dir: Path | None = None,
    launcher: str = "none",
    options: Mapping[str, Any] | None = None,
    window: int | str | None = "trained",
) -> None:
    """Score a checkpoint on the validation sets of a BasicSR option file; arguments as :func:`train`.

    Args:
        config: A ``.yml`` file.
        checkpoint: Weights of ``network_g``, in any form that :func:`panet_plugin.weights.read_state_dict` reads.
        work_dir: Folder for ``results/<name>``.
        launcher: Launcher of the processes.
        options: Overrides of the options.
        window: Window of attention, see :class:`~panet_plugin.inference.Restorer`; only for ``RestorationModel``.

    Raises:
        FileNotFoundError: If the file or a dataset does not exist.
        CheckpointError: If the file is not a checkpoint, or not of ``network_g``.
    """
    opt = load_options(config, options)
    # The model reads both keys.
    opt["trained_patch"] = read_patch(checkpoint) or patch_of_options(opt)
    if window != "trained":
        opt["window"] = window
    opt["datasets"] = {name: dataset for name, dataset in opt["datasets"].items() if not name.startswith("train")}
    network = build_arch(opt["network_g"])
    load_weights(network, checkpoint)  # for its errors
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "network_g.pth")
        torch.save({"params": network.state_dict()}, weights)
        opt["path"].update(pretrain_network_g=str(weights), param_key_g="params", strict_load_g=True)
        with _command_line(config, opt, launcher):
            test_pipeline(str(Path(work_dir or ".").absolute()))


def load_options(config: Path, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read an option file with its ``_base_`` files and overrides, and check that the data exist.

    ``task``, with the parameters of :func:`panet_plugin.tasks.make_task`, sets everything that depends on the task: the
    degradation of clean images, the scale and the protocol of our metrics. The scale determines ``{scale}`` in paths of
    datasets, and ``gt_size`` from the ``patch_size`` of the low-quality images. ``{data_root}`` in these paths stands
    for ``data_root``. A ``CosineAnnealingRestartLR`` without ``periods`` has a single one, the whole training.

    Raises:
        FileNotFoundError: If a dataset does not exist.
        ConfigError: If a file contains more than plain values, or an unregistered name.
        TaskError: If there is no such task, or its parameters are out of range.
    """
    cfg = Config(read_plain(config))
    changed = task_overrides(options or {})
    if changed and "task" not in cfg:
        raise ConfigError(f"{config}: no task to override with task.{next(iter(changed))}")
    override(cfg, options or {}, config)
    opt = cfg.to_dict()
    for name, network in opt.items():
        if name.startswith("network_") and network and (unknown := unregistered(network, "basicsr")):
            raise ConfigError(f"{config}: {name}: no network or layer {unknown} is registered")
    task = make_task(**opt["task"]) if "task" in opt else None
    if task and changed:
        follow_task(opt["network_g"], task)
        opt["name"] = name_of_run(opt["name"], changed)
    scale = opt.setdefault("scale", task.scale if task else 1)
    data_root = opt.pop("data_root", "")
    for name, dataset in opt["datasets"].items():
        if "sys_path" in (dataset.get("io_backend") or {}):
            # BasicSR would import a module from there.
            raise ConfigError(f"{config}: datasets.{name}.io_backend.sys_path is not allowed: set PYTHONPATH instead")
        if task and dataset["type"] == "CleanImageDataset":
            dataset["task"] = {**dataset.get("task", opt["task"]), **changed}
        for key in ("dataroot_gt", "dataroot_lq"):
            if root := dataset.get(key):
                dataset[key] = root.replace("{scale}", str(scale)).replace("{data_root}", str(data_root))
                if not Path(dataset[key]).expanduser().exists():
                    raise missing_data(dataset[key])
        if "patch_size" in dataset:
            dataset["gt_size"] = dataset.pop("patch_size") * scale
    scheduler = opt.get("train", {}).get("scheduler", {})
    if scheduler.get("type") == "CosineAnnealingRestartLR" and "periods" not in scheduler:
        scheduler.update(periods=[opt["train"]["total_iter"]], restart_weights=[1])
    for metric in (opt.get("val", {}).get("metrics") or {}).values():
        if metric["type"].startswith("calculate_protocol_"):
            metric.setdefault("scale", scale)
            if task:
                metric.setdefault("protocol", task.protocol.name)
    return opt


def _scale_learning_rates(config: Path, opt: dict[str, Any], launcher: str) -> None:
    """Scale learning rates with the total batch size if ``auto_scale_lr`` is set, as in MMEngine."""
    scaling = opt.pop("auto_scale_lr", None) or {}
    if not scaling.get("enable"):
        return
    if "base_batch_size" not in scaling:
        raise ConfigError(f"{config}: auto_scale_lr: expected base_batch_size, the batch size of the learning rates")
    if launcher != "none":
        gpus = Rank.of().world
    else:  # all in one process
        gpus = torch.cuda.device_count() if opt["num_gpu"] == "auto" else opt["num_gpu"]
    batch = opt["datasets"]["train"]["batch_size_per_gpu"] * max(1, gpus)
    for name, optimizer in opt["train"].items():
        if name.startswith("optim_"):
            optimizer["lr"] *= batch / scaling["base_batch_size"]


def last_state(experiment: Path) -> Path | None:
    """Return the newest complete training state of an experiment, or None."""
    states = sorted(experiment.glob("training_states/*.state"), key=lambda path: float(path.stem), reverse=True)
    for state in states:
        network = experiment / "models" / f"net_g_{state.stem}.pth"
        if is_whole(state) and is_whole(network):
            return state
        logger.warning("%s or %s is incomplete; looking for an older one", state, network)
    return None


def _position(state: str | None) -> tuple[int, int]:
    """Return iteration and epoch of a training state; zeros without one."""
    if not state:
        return 0, 0
    found = _read(state)
    if not isinstance(found, Mapping) or not found.keys() >= {"iter", "epoch", "optimizers", "schedulers"}:
        raise CheckpointError(
            f"{state}: expected a training state of BasicSR, with iter, epoch, optimizers, schedulers"
        )
    return found["iter"], found["epoch"]


def _read(checkpoint: str) -> Any:
    path = Path(checkpoint).expanduser()
    return load_safely(path, map_location="cpu", mmap=path.is_file() and is_whole(path))


@contextmanager
def _command_line(config: Path, opt: Mapping[str, Any], launcher: str) -> Iterator[None]:
    """Pass the options to BasicSR, which reads them only from a file and ``sys.argv``."""
    # Reading the start method fixes it; BasicSR would change it to spawn for distributed training.
    multiprocessing.get_start_method()
    before = sys.argv
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, config.name)
        file.write_text(yaml.safe_dump(opt, sort_keys=False, allow_unicode=True), encoding="utf-8")
        sys.argv = [before[0], "-opt", str(file), "--launcher", launcher]
        try:
            yield
        finally:
            sys.argv = before
