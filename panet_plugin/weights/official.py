"""From a state dict alone to the network it belongs to: ours by name, the original's through a table of names."""

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.weights.files import CheckpointError, _shorten, read_state_dict

# Names of the original -> ours; None drops an entry. The first pattern that matches a whole name counts.
_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"msa\..+", None),  # PA-EDSR holds its attention twice; body.N is what counts
    (r"(?:.+\.)?escape_NaN", None),  # a constant
    (r"head\.0\.(weight|bias)", r"head.\1"),
    (r"body\.(\d+)\.body\.0\.(weight|bias)", r"body.blocks.\1.conv1.\2"),
    (r"body\.(\d+)\.body\.1\.weight", r"body.blocks.\1.activation.weight"),
    (r"body\.(\d+)\.body\.2\.(weight|bias)", r"body.blocks.\1.conv2.\2"),
    (r"body\.(\d+)\.conv_match_L_base\.([01]\.\w+)", r"body.blocks.\1.query.\2"),
    (r"body\.(\d+)\.conv_match\.([01]\.\w+)", r"body.blocks.\1.key.\2"),
    (r"body\.(\d+)\.conv_assembly\.([01]\.\w+)", r"body.blocks.\1.value.\2"),
    (r"body\.\d+\.(weight|bias)", r"body.conv.\1"),
    (r"tail\.0\.(\d+)\.(weight|bias)", r"upsample.\1.\2"),
    (r"tail\.[01]\.(weight|bias)", r"tail.\1"),
    (r"(sub_mean|add_mean)\.(weight|bias)", r"\1.\2"),
)


def load_official(source: str | os.PathLike | Mapping[str, Any]) -> nn.Module:
    """Load a checkpoint of the original PANet or PA-EDSR, or of ours, as a network in evaluation mode.

    The kind of network, its blocks, channels, scale and reduction are read from the names and shapes alone. What
    they do not tell (number of levels, softmax scale) is as published.

    Args:
        source: A checkpoint file or its content; see :func:`~panet_plugin.weights.read_state_dict`.

    Returns:
        A :class:`~panet_plugin.archs.PANet` or :class:`~panet_plugin.archs.PAEDSR`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint of these networks; the message says what was found.
    """
    name = "the given state dict" if isinstance(source, Mapping) else str(source)
    state = read_state_dict(source)
    try:
        if any("conv_assembly" in key for key in state):
            state = _rename(state)
        return build_from_state_dict(state)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error


def build_from_state_dict(state: Mapping[str, Tensor]) -> nn.Module:
    """Build the network that a state dict of this project's names belongs to, in evaluation mode.

    Raises:
        CheckpointError: If the names or shapes belong to no such network, or anything is missing or left over.
    """
    blocks = sum(bool(re.fullmatch(r"body\.blocks\.\d+\.conv1\.weight", key)) for key in state)
    attention = next((k for k in state if re.fullmatch(r"body\.blocks\.\d+\.query\.0\.weight", k)), None)
    if attention is None or "head.weight" not in state or state["head.weight"].ndim != 4 or state[attention].ndim != 4:
        raise CheckpointError(f"expected the weights of PANet or PA-EDSR, found {_shorten(list(state))}")
    mid_channels, in_channels = state["head.weight"].shape[:2]
    arguments: dict[str, Any] = {"in_channels": in_channels, "mid_channels": mid_channels, "num_blocks": blocks}
    arguments["attention"] = {"reduction": max(1, mid_channels // max(1, state[attention].shape[0]))}
    network_class: type[nn.Module] = PANet
    if "mean" in state:
        network_class = PAEDSR
        ups = [value for key, value in state.items() if re.fullmatch(r"upsample\.\d+\.weight", key)]
        arguments["scale"] = math.prod(math.isqrt(max(1, up.shape[0] // max(1, mid_channels))) for up in ups)
    try:
        with torch.device("meta"):
            network = network_class(**arguments)
        network.load_state_dict(state, strict=True, assign=True)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"looks like {network_class.__name__}({arguments}), but {_shorten(str(error), 1000)}"
        ) from error
    return network.eval()


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        for pattern, ours in _NAMES:
            if match := re.fullmatch(pattern, key):
                if ours is not None:
                    renamed[match.expand(ours)] = value
                break
        else:
            unknown.append(key)
    if unknown:
        raise CheckpointError(f"expected the weights of the original PANet or PA-EDSR, also found {_shorten(unknown)}")
    shift = {
        key: renamed.pop(key, None) for key in ("sub_mean.weight", "sub_mean.bias", "add_mean.weight", "add_mean.bias")
    }
    # PANet carries mean shifts that it never applies; only the super-resolution network uses them.
    if any(key.startswith("upsample.") for key in renamed):
        renamed["mean"] = _mean_colour(shift)
    return renamed


def _mean_colour(shift: Mapping[str, Tensor | None]) -> Tensor:
    if missing := [key for key, value in shift.items() if value is None]:
        raise CheckpointError(f"missing {', '.join(missing)}")
    weight, bias = shift["sub_mean.weight"], shift["sub_mean.bias"]
    identity = torch.eye(bias.numel()).view_as(weight) if weight.numel() == bias.numel() ** 2 else None
    if (
        identity is None
        or not torch.allclose(weight, identity)
        or not torch.allclose(shift["add_mean.weight"], identity)
        or not torch.allclose(shift["add_mean.bias"], -bias)
        or bias.abs().max() > 1
    ):
        raise CheckpointError(
            "expected mean shifts of unit weight for images in [0, 1], found "
            f"sub_mean.bias = {bias.tolist()}, add_mean.bias = {shift['add_mean.bias'].tolist()}"
        )
    return -bias.view(1, -1, 1, 1)
