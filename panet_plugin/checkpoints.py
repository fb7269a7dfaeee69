"""From a checkpoint of either framework, of this project or of the original to the network it belongs to."""

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
    """Load a network from a checkpoint alone, wherever that says which network it is.

    What this project wrote, and the original's, say it themselves; MMEngine's hold their config; BasicSR's
    ``experiments/NAME/models/net_g_*.pth`` lie beside their options. Nothing found there is executed.

    Args:
        checkpoint: The file; averaged (EMA) weights are preferred.
        config: For all others: a ``.py`` of MMEngine or a ``.yml`` of BasicSR. Both are read as plain values; neither
            is executed.

    Returns:
        The network, which takes gray or RGB images in [0, 1], in evaluation mode. Its ``trained_patch`` is the side in
        pixels of the patches that it was trained on, None if that is not known.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no checkpoint, does not say of which network, or is not that of the config.
        ConfigError: If the config holds more than plain values.
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
    """Return what the network depends on besides the weights in a file; arguments and errors as :func:`load_any`."""
    found = _describe(checkpoint, config)
    return repr(found and (found[0].name, found[1].network))


def load_task(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> Task | None:
    """Return the task that a network was trained for, where its checkpoint or its config says it.

    :func:`~panet_plugin.weights.write_checkpoint` may have written it; the configs of this project say it for the
    training images, or once for all in BasicSR's options. Nothing found in a checkpoint is executed.

    Args:
        checkpoint: The file.
        config: See :func:`load_any`.

    Returns:
        None if there is nothing said.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no checkpoint, or what is said is no task.
    """
    found = _describe(checkpoint, config)
    if found is None or (task := found[1].task) is None:
        return read_task(checkpoint)
    if not isinstance(task, Mapping):
        raise CheckpointError(f"{config or checkpoint}: expected the parameters of a task, found {task!r}")
    try:
        return make_task(**task)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{config or checkpoint}: {task} is no task: {error}") from error


def checkpoint_method(
    name: str,
    checkpoint: Path,
    config: Path | None = None,
    device: str | torch.device = "cpu",
    cut: int | None = None,
    window: int | str | None = "trained",
) -> NetworkMethod:
    """Return the network of a checkpoint as a method to score; other arguments and errors as :func:`load_any`.

    Args:
        name: As it stands in tables.
        checkpoint: The file.
        config: For checkpoints that do not say of which network they are.
        device: Where the network runs.
        cut: See :class:`~panet_plugin.evaluation.NetworkMethod`.
        window: See :class:`~panet_plugin.evaluation.NetworkMethod`.
    """
    identity = f"{sha256_of(checkpoint)} {network_description(checkpoint, config)}"
    if window == "trained":
        identity += f" trained on {load_patch(checkpoint, config)}"
    return NetworkMethod(name, lambda: load_any(checkpoint, config), identity, device, cut, window)


def _describe(source: str | os.PathLike, config: str | os.PathLike | None) -> tuple[Bridge, Description] | None:
    """Return the network that a config or a framework's checkpoint describes; None if there is no description."""
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
    """Read the config that MMEngine keeps in its checkpoints, or the options that BasicSR leaves in the folder above.

    Raises:
        CheckpointError: If a config is damaged, or there are those of several networks.
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
            raise CheckpointError(f"{file}: not an option file ({error})") from error
        if (one := _interpret(values, file.suffix, file)) not in found:
            found.append(one)
    if len(found) > 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{checkpoint}: the options beside it ({names}) are of several networks; {ADVICE}")
    return found


def _interpret(values: Mapping[str, Any], suffix: str, source: Path) -> tuple[Bridge, Description]:
    bridge = bridge_of(values, suffix)
    assert bridge is not None  # the suffixes are known
    return bridge, bridge.describe(values, source)


def _build(bridge: Bridge, description: Description, source: str | os.PathLike) -> nn.Module:
    archs = bridge.load("archs")
    try:
        return archs.build_arch(description.network)
    # Whatever a network does not like about its arguments.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{source}: cannot build the network {description.network}: {reason}") from error


def _official(checkpoint: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # Of a guess, which is refused here.
            warnings.filterwarnings("ignore", message=".*residual scales")
            network = load_official(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; if it is that of another network, {ADVICE}") from error
    if network.arguments is None:
        raise CheckpointError(f"{checkpoint}: it does not say of which network it is; {ADVICE}")
    return network
