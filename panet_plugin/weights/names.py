"""The original's names for what ours are called otherwise."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from panet_plugin.weights.errors import CheckpointError, shorten

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


def is_original(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the original's names."""
    return any(".conv_assembly." in key for key in state)


def from_original(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of the original PANet or PA-EDSR under our names.

    Raises:
        CheckpointError: If there are other names, or mean shifts that our networks cannot express.
    """
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
        raise CheckpointError(f"expected the weights of the original PANet or PA-EDSR, also found {shorten(unknown)}")
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
