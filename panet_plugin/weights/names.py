"""Conversion of the original networks' names of weights to those of this project."""

import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from panet_plugin.errors import CheckpointError, shorten

#: Patterns of the original's names and replacements; None drops an entry. The first full match applies.
Table = tuple[tuple[str, str | None], ...]

_PANET: Table = (
    (r"msa\..+", None),  # PA-EDSR stores its attention twice; body.N is used
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


def _rnan() -> Table:
    """Generate the table of RNAN's nested names: groups, their parts, and the residual blocks in these."""
    groups = {
        r"body_nl_low\.0\.body\.": "low.",
        r"body\.(?P<group>\d+)\.body\.": r"groups.\g<group>.",
        r"body_nl_high\.0\.body\.": "high.",
    }
    non_local = {"theta": "query", "phi": "key", "g": "value", "W": "output"}
    mask = r"0\.RA_MB\.0\.MB_"
    parts = {
        r"0\.RA_RB1\.0": "before",
        r"0\.RA_TB\.0\.body\.(?P<index>\d+)": r"trunk.\g<index>",
        **{rf"{mask}RB1\.0\.{theirs}": f"mask.non_local.{ours}" for theirs, ours in non_local.items()},
        rf"{mask}RB1\.[01]": "mask.before",
        rf"{mask}Down\.0": "mask.down",
        rf"{mask}RB2\.(?P<index>\d+)": r"mask.middle.\g<index>",
        rf"{mask}Up\.0": "mask.up",
        rf"{mask}RB3\.0": "mask.after",
        rf"{mask}1x1conv\.0": "mask.conv",
        r"0\.RA_tail\.(?P<index>\d+)": r"after.\g<index>",
        "1": "conv",
    }
    layers = {"": "", r"body\.0\.": "conv1.", r"body\.2\.": "conv2."}
    nested = (
        (rf"{group}{part}\.{layer}(?P<kind>weight|bias)", rf"{our_group}{our_part}.{our_layer}\g<kind>")
        for group, our_group in groups.items()
        for part, our_part in parts.items()
        for layer, our_layer in layers.items()
    )
    shared = tuple(row for row in _PANET if row[0].startswith(("head", "tail", "(sub_mean")))
    return (*nested, (r"body\.\d+\.(weight|bias)", r"conv.\1"), *shared)


_RNAN = _rnan()

#: Color range of the published RNANs, which are recognized by their inner groups and channels.
_RNAN_RANGE, _RNAN_SIZE = 255, (8, 64)

_SHIFTS = tuple(f"{which}_mean.{kind}" for which in ("sub", "add") for kind in ("weight", "bias"))


def table_of(names: Iterable[str]) -> Table | None:
    """Return the table of the original with these names; None if there is none."""
    for name in names:
        if name.startswith("body_nl_low."):
            return _RNAN
        if ".conv_assembly." in name:
            return _PANET
    return None


def our_name(name: str, table: Table) -> str | None:
    """Return this project's name for one of the original's, None for an entry to drop.

    Raises:
        KeyError: If the original has no such name.
    """
    for pattern, ours in table:
        if match := re.fullmatch(pattern, name):
            return ours and match.expand(ours)
    raise KeyError(name)


def from_original(state: Mapping[str, Tensor], table: Table, rgb_range: float | None = None) -> dict[str, Tensor]:
    """Convert a state dict of the original PANet, PA-EDSR or RNAN to this project's names and images in [0, 1].

    Args:
        state: Tensors by the original's names.
        table: The table of its names, from :func:`table_of`.
        rgb_range: The largest color value in the network's training. None: detected from the mean shifts; for an RNAN
            without these, 255 if it has the published size, otherwise 1.

    Raises:
        CheckpointError: If there are unknown names, or unsupported mean shifts.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for key, value in state.items():
        try:
            if ours := our_name(key, table):
                renamed[ours] = value
        except KeyError:
            unknown.append(key)
    if unknown:
        family = "RNAN" if table is _RNAN else "PANet or PA-EDSR"
        raise CheckpointError(f"expected the weights of the original {family}, also found {shorten(unknown)}")
    shift = {key: renamed.pop(key) for key in _SHIFTS if key in renamed}
    found = _range_of_shift(shift)
    if rgb_range is None:
        rgb_range = found or (_usual_range(renamed) if table is _RNAN else 1)
    elif found not in (None, rgb_range):
        raise CheckpointError(f"its mean shifts are for images in [0, {found}], but rgb_range is {rgb_range:g}")
    # PANet stores mean shifts that it never applies.
    if any(key.startswith("upsample.") for key in renamed) or (table is _RNAN and shift):
        renamed["mean"] = _mean_color(shift, rgb_range)
    return _for_unit_range(renamed, rgb_range)


def _range_of_shift(shift: Mapping[str, Tensor]) -> int | None:
    if "sub_mean.bias" not in shift:
        return None
    return 255 if (shift["sub_mean.bias"].abs() > 1).any() else 1


def _usual_range(renamed: Mapping[str, Tensor]) -> int:
    groups = sum(bool(re.fullmatch(r"groups\.\d+\.conv\.weight", key)) for key in renamed)
    if "head.weight" in renamed and (groups, *renamed["head.weight"].shape[:1]) == _RNAN_SIZE:
        return _RNAN_RANGE
    warnings.warn(
        "the color range of an RNAN without mean shifts is unknown: since its size is not the published one, [0, 1] is "
        "assumed. If it was trained with another one, pass rgb_range to load_official.",
        stacklevel=2,
    )
    return 1


def _for_unit_range(state: dict[str, Tensor], rgb_range: float) -> dict[str, Tensor]:
    """Rescale the head to accept and the tail to return images in [0, 1]; the features do not change."""
    for key, factor in {"head.weight": rgb_range, "tail.weight": 1 / rgb_range, "tail.bias": 1 / rgb_range}.items():
        if key in state and factor != 1:
            state[key] = state[key] * factor
    return state


def _mean_color(shift: Mapping[str, Tensor], rgb_range: float) -> Tensor:
    if missing := [key for key in _SHIFTS if key not in shift]:
        raise CheckpointError(f"missing {', '.join(missing)}")
    weight, bias = shift["sub_mean.weight"], shift["sub_mean.bias"] / rgb_range
    identity = torch.eye(bias.numel()).view_as(weight) if weight.numel() == bias.numel() ** 2 else None
    if (
        identity is None
        or not _close(weight, identity)
        or not _close(shift["add_mean.weight"], identity)
        or not _close(shift["add_mean.bias"], -shift["sub_mean.bias"])
        or (bias.abs() > 1).any()
    ):
        raise CheckpointError(
            "expected mean shifts of unit weight for images in [0, 1] or [0, 255], found "
            f"sub_mean.bias = {shift['sub_mean.bias'].tolist()}, add_mean.bias = {shift['add_mean.bias'].tolist()}"
        )
    return -bias.view(1, -1, 1, 1)


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other)
