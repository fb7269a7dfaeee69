"""Building networks from checkpoints."""

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

#: Name of the weights whose shape shows an attention's reduction.
_QUERY = r"body\.blocks\.\d+\.query\.0\.weight"

#: Names of the weights of every residual block.
_BLOCK = r"body\.blocks\.\d+\.conv1\.weight"


def load_official(source: str | os.PathLike | Mapping[str, Any], rgb_range: float | None = None) -> nn.Module:
    """Load a checkpoint of the original PANet, PA-EDSR or RNAN, or of this project, as a network in evaluation mode.

    The kind of network, its blocks or groups, channels, scale and reduction are detected from names and shapes. The
    other settings (residual scales; levels, patch size and softmax of the attention) are as published, unless the file
    records them because :func:`~panet_plugin.weights.write_checkpoint` wrote it.

    Args:
        source: A checkpoint file or its content; see :func:`~panet_plugin.weights.read_state_dict`.
        rgb_range: The largest color value in the training of an original network; the loaded network always takes
            images in [0, 1]. Only needed for RNANs without mean shifts (all but super-resolution): 255 is assumed for
            those with the published size, 1 for others.

    Returns:
        A :class:`~panet_plugin.archs.PANet`, :class:`~panet_plugin.archs.PAEDSR` or
        :class:`~panet_plugin.archs.RNAN`. Its ``trained_patch`` is the size of the training patches in pixels, None if
        unknown.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint of these networks; the message lists what was found.
        ValueError: If ``rgb_range`` is not positive.

    Warns:
        UserWarning: If it is a framework's checkpoint of a network of this project: its config, which may have other
            settings, is not read. For RNAN, names and shapes are sufficient, except for the color range, see above.
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
            f"{name} does not record its residual scales and attention settings: the published ones are assumed. "
            "If its config has others, build the network from the config.",
            stacklevel=2,
        )
        network.arguments = None  # assumptions must not be written to files
    return network


def identify(names: Iterable[str], attention: bool = True) -> type[nn.Module] | None:
    """Return the class of the network with these names in its state dict, ours or the original's; None if unknown.

    PANet and PA-EDSR without ``attention`` have names that other networks may have too; our files record the class.
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
    """Load a checkpoint strictly into a network of any kind.

    Args:
        network: The network, which is modified in place.
        source: See :func:`~panet_plugin.weights.read_state_dict`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is not a checkpoint, or not of such a network.
    """
    try:
        network.load_state_dict(read_state_dict(source), strict=True)
    except RuntimeError as error:
        name = "the given state dict" if isinstance(source, Mapping) else str(source)
        raise CheckpointError(f"{name}: not the weights of such a network: {shorten(str(error), 1000)}") from error


def _build(state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network from names and shapes; ``arguments`` supply the settings that these do not determine."""
    attention = arguments.get("attention", {})
    network_class = identify(state, attention is not False)
    head = state.get("head.weight")
    if network_class is None or head is None or head.ndim != 4:
        raise CheckpointError(f"expected the weights of PANet, PA-EDSR or RNAN, found {shorten(list(state))}")
    mid_channels, in_channels = head.shape[:2]
    known: dict[str, Any] = {"in_channels": in_channels, "mid_channels": mid_channels}
    try:
        if network_class is not PANet:
            ups = _matching(state, r"upsample\.\d+\.weight")
            known["scale"] = math.prod(math.isqrt(max(1, len(up) // max(1, mid_channels))) for up in ups)
        if network_class is RNAN:
            known["num_groups"] = 2 + len(_matching(state, r"groups\.\d+\.conv\.weight"))
        else:
            known["num_blocks"] = len(_matching(state, _BLOCK))
            if attention is not False:
                reduction = max(1, mid_channels // max(1, len(_matching(state, _QUERY)[0])))
                known["attention"] = {**attention, "reduction": reduction}
            if _matching(state, r"body\.blocks\.\d+\.gain"):
                known["attention"] |= {"residual_init": "zero", "res_scale": 1.0}  # residual_init requires res_scale=1
            if (kind := state.get("image_residual.kind")) is not None:
                known["image_residual"] = KINDS.get(int(kind), False)
        arguments = {**arguments, **known}
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
