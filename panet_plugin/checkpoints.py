"""Building networks from checkpoints of either framework, this project or the original."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from panet_plugin.data.manifest import sha256_of
from panet_plugin.errors import CheckpointError, ConfigError
from panet_plugin.evaluation import NetworkMethod
from panet_plugin.frameworks.bridges import ADVICE, Bridge, Description, bridge_of, bridge_of_config, unregistered
from panet_plugin.frameworks.configs import as_mapping, assignments, parse_yaml, read_plain
from panet_plugin.tasks import Task, make_task
from panet_plugin.weights import (
    load_official,
    load_weights,
    read_mmengine_config,
    read_patch,
    read_task,
)

__all__ = ["checkpoint_method", "load_any", "load_patch", "load_task", "network_description"]


def load_any(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> nn.Module:
    """Load the network of a checkpoint, if possible from the checkpoint alone.

    Checkpoints of this project and the original identify their network; those of MMEngine contain their config; those
    of BasicSR, ``experiments/NAME/models/net_g_*.pth``, are stored near their options. None of this is executed.

    Args:
        checkpoint: The file; averaged (EMA) weights are preferred.
        config: Training config of a checkpoint that does not identify its network: a ``.py`` file of MMEngine or a
            ``.yml`` file of BasicSR. Both are read as plain values; neither is executed.

    Returns:
        The network, which takes gray or RGB images in [0, 1], in evaluation mode. Its ``trained_patch`` is the size of
        the training patches in pixels, None if unknown.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, does not identify its network, or does not fit the config.
        ConfigError: If the config contains more than plain values.
    """
    if (found := _describe(checkpoint, config)) is None:
        return _official(Path(checkpoint))
    network: Any = _build(*found, config or checkpoint)
    load_weights(network, checkpoint)
    network.trained_patch = read_patch(checkpoint) or found[1].patch
    return network.eval()


def load_patch(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> int | None:
    """Return ``trained_patch`` of :func:`load_any` without loading the network; other arguments and errors as there."""
    if (patch := read_patch(checkpoint)) is not None:
        return patch
    found = _describe(checkpoint, config)
    return found[1].patch if found else None


def network_description(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> str:
    """Return a description of a checkpoint's network without its weights; arguments and errors as :func:`load_any`."""
    found = _describe(checkpoint, config)
    return repr(found and (found[0].name, found[1].network))


def load_task(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> Task | None:
    """Return the task for which a network was trained, if its checkpoint or config records it.

    It may be stored by :func:`~panet_plugin.weights.write_checkpoint`, or in the config: in the training dataset for
    MMEngine, at the top level for BasicSR. Nothing in a checkpoint is executed.

    Args:
        checkpoint: The file.
        config: See :func:`load_any`.

    Returns:
        The task; None if it is not recorded.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or the task is invalid.
    """
    found = _describe(checkpoint, config)
    if found is None or (task := found[1].task) is None:
        return read_task(checkpoint)
    if not isinstance(task, Mapping):
        raise CheckpointError(f"{config or checkpoint}: expected the parameters of a task, found {task!r}")
    try:
        return make_task(**task)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{config or checkpoint}: {task} is not a task: {error}") from error


def checkpoint_method(
    name: str,
    checkpoint: Path,
    config: Path | None = None,
    device: str | torch.device = "cpu",
    chop: int | None = None,
    window: int | str | None = "trained",
    cut: int | None = None,
) -> NetworkMethod:
    """Return the network of a checkpoint as a method to score; errors as :func:`load_any`.

    Args:
        name: Name in tables.
        checkpoint: The file.
        config: Training config of a checkpoint that does not identify its network.
        device: Device of the network.
        chop: See :class:`~panet_plugin.evaluation.NetworkMethod`.
        window: See :class:`~panet_plugin.evaluation.NetworkMethod`.
        cut: The former name of ``chop``, for one more release.
    """
    identity = f"{sha256_of(checkpoint)} {network_description(checkpoint, config)}"
    if window == "trained":
        identity += f" trained on {load_patch(checkpoint, config)}"
    return NetworkMethod(name, lambda: load_any(checkpoint, config), identity, device, chop or cut, window)


def _describe(source: str | os.PathLike, config: str | os.PathLike | None) -> tuple[Bridge, Description] | None:
    """Return the network described by a config or a framework's checkpoint; None if there is no description."""
    if config is not None:
        path = Path(config)
        bridge = bridge_of_config(path)
        found = [(bridge, bridge.describe(read_plain(path), path))]
    else:
        found = _within_or_beside(Path(source))
    for bridge, description in found:
        if unknown := unregistered(description.network, bridge.name):
            raise CheckpointError(f"{config or source}: no network or layer {unknown} is registered; {ADVICE}")
        return bridge, description
    return None


def _within_or_beside(checkpoint: Path) -> list[tuple[Bridge, Description]]:
    """Read the config in a checkpoint of MMEngine, or the options of BasicSR in the parent folder.

    Raises:
        CheckpointError: If a config is damaged, or there are configs of several networks.
    """
    text = read_mmengine_config(checkpoint)
    if text is not None:
        try:
            values: Mapping[str, Any] = assignments(text)
        except ConfigError as error:
            raise CheckpointError(f"{checkpoint}: its config: {error}; {ADVICE}") from error
        return [_interpret(values, ".py", checkpoint)]
    path = checkpoint.resolve()
    files = sorted(path.parents[1].glob("*.yml")) if path.parent.name == "models" else []
    found: list[tuple[Bridge, Description]] = []
    for file in files:
        try:
            values = as_mapping(parse_yaml(file.read_text(encoding="utf-8")))
        except (ConfigError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file}: not a valid option file ({error})") from error
        if (one := _interpret(values, file.suffix, file)) not in found:
            found.append(one)
    if len(found) > 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{checkpoint}: its option files ({names}) describe several networks; {ADVICE}")
    return found


def _interpret(values: Mapping[str, Any], suffix: str, source: Path) -> tuple[Bridge, Description]:
    bridge = bridge_of(values, suffix)
    assert bridge is not None  # the suffixes are known
    return bridge, bridge.describe(values, source)


def _build(bridge: Bridge, description: Description, source: str | os.PathLike) -> nn.Module:
    archs = bridge.load("archs")
    try:
        return archs.build_arch(description.network)
    # Constructors may raise any error for invalid arguments.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{source}: cannot build the network {description.network}: {reason}") from error


def _official(checkpoint: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # The warning about assumed settings, which are an error here.
            warnings.filterwarnings("ignore", message=".*residual scales")
            network = load_official(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; for a checkpoint of another network, {ADVICE}") from error
    if network.arguments is None:
        raise CheckpointError(f"{checkpoint}: it does not identify its network; {ADVICE}")
    return network
