"""From a checkpoint to the network it belongs to."""

import math
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.weights.errors import CheckpointError, shorten
from panet_plugin.weights.files import read_checkpoint, read_state_dict


def load_official(source: str | os.PathLike | Mapping[str, Any]) -> nn.Module:
    """Load a checkpoint of the original PANet or PA-EDSR, or of ours, as a network in evaluation mode.

    The kind of network, its blocks, channels, scale and reduction are read from the names and shapes alone. What
    these do not tell (residual scales; levels, patch size and softmax of the attention) is as published, unless
    :func:`~panet_plugin.weights.write_checkpoint` wrote the file, which then says it.

    Args:
        source: A checkpoint file or its content; see :func:`~panet_plugin.weights.read_state_dict`.

    Returns:
        A :class:`~panet_plugin.archs.PANet` or :class:`~panet_plugin.archs.PAEDSR`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint of these networks; the message says what was found.

    Warns:
        UserWarning: If it was trained here with either framework: its config, which may say otherwise, is not read.
    """
    name = "the given state dict" if isinstance(source, Mapping) else str(source)
    state, arguments = read_checkpoint(source)
    try:
        if arguments is None:
            warnings.warn(
                f"{name} does not say its residual scales and attention settings: they are taken as published. "
                "If its config says otherwise, build the network from that.",
                stacklevel=2,
            )
        network = _build(state, arguments or {})
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    if arguments is None:
        network.arguments = None  # a guess is not to be written into a file
    return network


def load_weights(network: nn.Module, source: str | os.PathLike | Mapping[str, Any]) -> None:
    """Load a checkpoint into a network of ours or of any other kind, strictly.

    Args:
        network: Is changed in place.
        source: See :func:`~panet_plugin.weights.read_state_dict`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or not that of such a network.
    """
    try:
        network.load_state_dict(read_state_dict(source), strict=True)
    except RuntimeError as error:
        name = "the given state dict" if isinstance(source, Mapping) else str(source)
        raise CheckpointError(f"{name}: not the weights of such a network: {shorten(str(error), 1000)}") from error


def _build(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network from our names and shapes; ``arguments`` fill in what those do not tell."""
    blocks = sum(bool(re.fullmatch(r"body\.blocks\.\d+\.conv1\.weight", key)) for key in state)
    query = next((k for k in state if re.fullmatch(r"body\.blocks\.\d+\.query\.0\.weight", k)), None)
    if query is None or "head.weight" not in state or state["head.weight"].ndim != 4 or state[query].ndim != 4:
        raise CheckpointError(f"expected the weights of PANet or PA-EDSR, found {shorten(list(state))}")
    mid_channels, in_channels = state["head.weight"].shape[:2]
    reduction = max(1, mid_channels // max(1, state[query].shape[0]))
    told = {"in_channels": in_channels, "mid_channels": mid_channels, "num_blocks": blocks}
    network_class: type[nn.Module] = PANet
    if "mean" in state:
        network_class = PAEDSR
        ups = [value for key, value in state.items() if re.fullmatch(r"upsample\.\d+\.weight", key)]
        told["scale"] = math.prod(math.isqrt(max(1, up.shape[0] // max(1, mid_channels))) for up in ups)
    try:
        attention = {**arguments.get("attention", {}), "reduction": reduction}
        arguments = {**arguments, **told, "attention": attention}
        with torch.device("meta"):
            network = network_class(**arguments)
        network.to_empty(device="cpu").load_state_dict(state, strict=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"looks like {network_class.__name__}({dict(arguments)}), but {shorten(str(error), 1000)}"
        ) from error
    return network.eval()
