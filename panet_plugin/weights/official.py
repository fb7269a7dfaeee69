"""From a checkpoint to the network it belongs to."""

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs import PAEDSR, RNAN, PANet
from panet_plugin.archs.image_residual import KINDS
from panet_plugin.errors import CheckpointError, shorten
from panet_plugin.weights.files import ABOUT, PREFIXES, read_checkpoint, read_state_dict
from panet_plugin.weights.names import our_name, table_of

#: The name of the weights that tell an attention's reduction.
_QUERY = r"body\.blocks\.\d+\.query\.0\.weight"

#: Those that every residual block has.
_BLOCK = r"body\.blocks\.\d+\.conv1\.weight"


def load_official(source: str | os.PathLike | Mapping[str, Any], rgb_range: float | None = None) -> nn.Module:
    """Load a checkpoint of the original PANet, PA-EDSR or RNAN, or of ours, as a network in evaluation mode.

    The kind of network, its blocks or groups, channels, scale and reduction are read from the names and shapes
    alone. What these do not tell (residual scales; levels, patch size and softmax of the attention) is as published,
    unless :func:`~panet_plugin.weights.write_checkpoint` wrote the file, which then says it.

    Args:
        source: A checkpoint file or its content; see :func:`~panet_plugin.weights.read_state_dict`.
        rgb_range: The largest color value that a network of the original was trained with; ours is for images in
            [0, 1] in any case. It needs saying only of RNANs without mean shifts (all but super-resolution): those of
            the published size are taken to be for 255, as published, others for 1.

    Returns:
        A :class:`~panet_plugin.archs.PANet`, :class:`~panet_plugin.archs.PAEDSR` or
        :class:`~panet_plugin.archs.RNAN`. Its ``trained_patch`` is the side in pixels of the patches that it was
        trained on, None if that is not known.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint of these networks; the message says what was found.
        ValueError: If ``rgb_range`` is not positive.

    Warns:
        UserWarning: If it was trained here with either framework: its config, which may say otherwise, is not read.
            An RNAN's names and shapes say all, except for the color range of an original one, see above.
    """
    name = "the given state dict" if isinstance(source, Mapping) else str(source)
    if rgb_range is not None and not rgb_range > 0:
        raise ValueError(f"rgb_range must be positive, got {rgb_range}")
    state, arguments, patch = read_checkpoint(source, rgb_range)
    try:
        network: Any = _build(state, arguments or {})
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from error
    network.trained_patch = patch
    if arguments is None and not isinstance(network, RNAN):
        warnings.warn(
            f"{name} does not say its residual scales and attention settings: they are taken as published. "
            "If its config says otherwise, build the network from that.",
            stacklevel=2,
        )
        network.arguments = None  # a guess is not to be written into a file
    return network


def identify(names: Iterable[str], attention: bool = True) -> type[nn.Module] | None:
    """Return the class of the network whose state dict has these names, ours or the original's; None if unknown.

    PANet and PA-EDSR without ``attention`` have names that other networks may have too; files of ours name themselves.
    """
    prefixes = "|".join(map(re.escape, PREFIXES))
    plain = {re.sub(f"^(?:{prefixes})+", "", name) for name in names if isinstance(name, str)}
    if (table := table_of(plain)) is not None:
        try:
            plain = {our_name(name, table) or name for name in plain}
        except KeyError:
            return None
    if "low.mask.non_local.query.weight" in plain:
        return RNAN
    sign = _QUERY if attention and ABOUT not in plain else _BLOCK
    if any(re.fullmatch(sign, name) for name in plain):
        return PAEDSR if any(name == "mean" or name.startswith("upsample.") for name in plain) else PANet
    return None


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
    attention = arguments.get("attention", {})
    network_class = identify(state, attention is not False)
    head = state.get("head.weight")
    if network_class is None or head is None or head.ndim != 4:
        raise CheckpointError(f"expected the weights of PANet, PA-EDSR or RNAN, found {shorten(list(state))}")
    mid_channels, in_channels = head.shape[:2]
    told: dict[str, Any] = {"in_channels": in_channels, "mid_channels": mid_channels}
    try:
        if network_class is not PANet:
            ups = _matching(state, r"upsample\.\d+\.weight")
            told["scale"] = math.prod(math.isqrt(max(1, len(up) // max(1, mid_channels))) for up in ups)
        if network_class is RNAN:
            told["num_groups"] = 2 + len(_matching(state, r"groups\.\d+\.conv\.weight"))
        else:
            told["num_blocks"] = len(_matching(state, _BLOCK))
            if attention is not False:
                reduction = max(1, mid_channels // max(1, len(_matching(state, _QUERY)[0])))
                told["attention"] = {**attention, "reduction": reduction}
            if _matching(state, r"body\.blocks\.\d+\.gain"):
                told["attention"] |= {"residual_init": "zero", "res_scale": 1.0}  # the one goes with the other alone
            if (kind := state.get("image_residual.kind")) is not None:
                told["image_residual"] = KINDS.get(int(kind), False)
        arguments = {**arguments, **told}
        with torch.device("meta"):
            network = network_class(**arguments)
        network.to_empty(device="cpu").load_state_dict(state, strict=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"looks like {network_class.__name__}({dict(arguments)}), but {shorten(str(error), 1000)}"
        ) from error
    return network.eval()


def _matching(state: Mapping[str, Tensor], pattern: str) -> list[Tensor]:
    return [value for key, value in state.items() if re.fullmatch(pattern, key)]
