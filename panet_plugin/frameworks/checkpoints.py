"""From a checkpoint of either framework, of this project or of the original to the network it belongs to."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from panet_plugin.data.manifest import sha256_of
from panet_plugin.evaluation import NetworkMethod
from panet_plugin.frameworks.configs import ConfigError, NotPlain, assignments, parse_yaml, read_plain
from panet_plugin.frameworks.patches import innermost_dataset, patch_of_loader, patch_of_options
from panet_plugin.frameworks.registered import unregistered
from panet_plugin.tasks import Task, make_task
from panet_plugin.weights import (
    CheckpointError,
    load_official,
    load_weights,
    read_mmengine_config,
    read_patch,
    read_task,
)

_ADVICE = "give the config that it was trained with"


class _Description(NamedTuple):
    """A network of a framework, ``{"type": name, **arguments}``, and if that is said, what it was trained for and on.

    The side of the patches is in pixels of the input.
    """

    framework: str
    network: dict[str, Any]
    task: Any = None
    patch: int | None = None


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
    description = _describe(checkpoint, config)
    if description is None:
        return _official(Path(checkpoint))
    network: Any = _build(description, config or checkpoint)
    load_weights(network, checkpoint)
    network.trained_patch = read_patch(checkpoint) or description.patch
    return network.eval()


def load_patch(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> int | None:
    """Return ``trained_patch`` of :func:`load_any` without loading the network; other arguments and errors as there."""
    if (patch := read_patch(checkpoint)) is not None:
        return patch
    description = _describe(checkpoint, config)
    return description.patch if description else None


def network_description(checkpoint: str | os.PathLike, config: str | os.PathLike | None = None) -> str:
    """Return what the network depends on besides the weights in a file; arguments and errors as :func:`load_any`."""
    description = _describe(checkpoint, config)
    return repr(description and description[:2])


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
    description = _describe(checkpoint, config)
    if description is None or description.task is None:
        return read_task(checkpoint)
    if not isinstance(description.task, Mapping):
        raise CheckpointError(f"{config or checkpoint}: expected the parameters of a task, found {description.task!r}")
    try:
        return make_task(**description.task)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{config or checkpoint}: {description.task} is no task: {error}") from error


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


def _describe(source: str | os.PathLike, config: str | os.PathLike | None) -> _Description | None:
    """Return the network that a config or a framework's checkpoint describes; None if there is no description."""
    description: _Description | None
    if config is not None:
        description = _of_config(Path(config))
    else:
        checkpoint = Path(source)
        text = read_mmengine_config(checkpoint)
        description = _of_options(checkpoint) if text is None else _of_text(text, checkpoint)
    if description and (unknown := unregistered(description.network, description.framework)):
        raise CheckpointError(f"{config or source}: no network or layer {unknown} is registered; {_ADVICE}")
    return description


def _build(description: _Description, source: str | os.PathLike) -> nn.Module:
    archs = importlib.import_module(f"panet_plugin.frameworks.{description.framework}.archs")
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
        raise CheckpointError(f"{error}; if it is that of another network, {_ADVICE}") from error
    if network.arguments is None:
        raise CheckpointError(f"{checkpoint}: it does not say of which network it is; {_ADVICE}")
    return network


def _of_config(config: Path) -> _Description:
    if not config.is_file() or config.suffix not in (".py", ".yml", ".yaml"):
        raise FileNotFoundError(f"{config}: expected an existing .py (MMEngine) or .yml (BasicSR) config")
    found = read_plain(config)
    return _of_assigned(found, config) if config.suffix == ".py" else _network_g(found, config)


def _of_text(text: str, checkpoint: Path) -> _Description:
    try:
        return _of_assigned(assignments(text), checkpoint)
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: its config: {error}; {_ADVICE}") from error


def _of_assigned(values: Mapping[str, Any], source: Path) -> _Description:
    """Read ``model`` and the training data of a config of MMEngine."""
    model, loader = values.get("model"), values.get("train_dataloader")
    if isinstance(model, NotPlain):
        raise CheckpointError(f"{source}: its model is not of plain values ({model}); {_ADVICE}")
    # The network does not depend on the data.
    return _generator(model, None if isinstance(loader, NotPlain) else loader, source)


def _of_options(checkpoint: Path) -> _Description | None:
    """Read the options that BasicSR leaves in the folder above its checkpoints."""
    path = checkpoint.resolve()
    files = sorted(path.parents[1].glob("*.yml")) if path.parent.name == "models" else []
    found = []
    for file in files:
        try:
            description = _network_g(parse_yaml(file.read_text(encoding="utf-8")), file)
        except (ConfigError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{file}: not an option file ({error})") from error
        if description not in found:
            found.append(description)
    if len(found) > 1:
        names = ", ".join(file.name for file in files)
        raise CheckpointError(f"{checkpoint}: the options beside it ({names}) are of several networks; {_ADVICE}")
    return found[0] if found else None


def _generator(model: Any, loader: Any, source: Path) -> _Description:
    generator = model.get("generator") if isinstance(model, Mapping) else None
    if not isinstance(generator, Mapping) or not isinstance(generator.get("type"), str):
        raise CheckpointError(f"{source}: expected a model with a generator in the config; {_ADVICE}")
    # MMagic shifts and scales images before its networks see them; ours are given images in [0, 1].
    preprocessor = model.get("data_preprocessor") or {}
    for key, wanted in (("mean", 0), ("std", 255)):
        if any(value != wanted for value in preprocessor.get(key) or ()):
            raise CheckpointError(
                f"{source}: expected a network for images in [0, 1] (mean 0, std 255), but its data_preprocessor has "
                f"the {key} {preprocessor[key]}"
            )
    task = innermost_dataset(loader).get("task")
    return _Description("mmagic", dict(generator), task, patch_of_loader(loader))


def _network_g(options: Any, source: Path) -> _Description:
    network = options.get("network_g") if isinstance(options, Mapping) else None
    if not isinstance(network, Mapping) or not isinstance(network.get("type"), str):
        raise CheckpointError(f"{source}: expected a network_g in the options; {_ADVICE}")
    return _Description("basicsr", dict(network), options.get("task"), patch_of_options(options))
