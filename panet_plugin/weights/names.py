"""The original's names for what ours are called otherwise."""

import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from panet_plugin.errors import CheckpointError, shorten

#: Names of an original -> ours; None drops an entry. The first pattern that matches a whole name counts.
Table = tuple[tuple[str, str | None], ...]

_PANET: Table = (
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


def _rnan() -> Table:
    """Spell out the nested names of RNAN: groups, their parts, and residual blocks in those."""
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

#: Color range of the published RNANs, and what tells them: their groups but the first and last, and channels.
_RNAN_RANGE, _RNAN_SIZE = 255, (8, 64)

_SHIFTS = tuple(f"{which}_mean.{kind}" for which in ("sub", "add") for kind in ("weight", "bias"))


def table_of(names: Iterable[str]) -> Table | None:
    """Return the table of the original that has these names, None if none has."""
    for name in names:
        if name.startswith("body_nl_low."):
            return _RNAN
        if ".conv_assembly." in name:
            return _PANET
    return None


def our_name(name: str, table: Table) -> str | None:
    """Return our name for one of the original's, None for what we do without.

    Raises:
        KeyError: If the original has no such name.
    """
    for pattern, ours in table:
        if match := re.fullmatch(pattern, name):
            return ours and match.expand(ours)
    raise KeyError(name)


def from_original(state: Mapping[str, Tensor], table: Table, rgb_range: float | None = None) -> dict[str, Tensor]:
    """Return a state dict of the original PANet, PA-EDSR or RNAN under our names, for images in [0, 1].

    Args:
        state: Tensors by the original's names.
        table: Its names, from :func:`table_of`.
        rgb_range: The largest color value that the network was trained with. None takes it from the mean shifts; an
            RNAN without any has 255 if it is of the published size, else 1.

    Raises:
        CheckpointError: If there are other names, or mean shifts that our networks cannot express.
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
    told = _told_range(shift)
    if rgb_range is None:
        rgb_range = told or (_usual_range(renamed) if table is _RNAN else 1)
    elif told not in (None, rgb_range):
        raise CheckpointError(f"its mean shifts are for images in [0, {told}], but rgb_range is {rgb_range:g}")
    # PANet carries mean shifts that it never applies.
    if any(key.startswith("upsample.") for key in renamed) or (table is _RNAN and shift):
        renamed["mean"] = _mean_color(shift, rgb_range)
    return _for_unit_range(renamed, rgb_range)


def _told_range(shift: Mapping[str, Tensor]) -> int | None:
    if "sub_mean.bias" not in shift:
        return None
    return 255 if (shift["sub_mean.bias"].abs() > 1).any() else 1


def _usual_range(renamed: Mapping[str, Tensor]) -> int:
    groups = sum(bool(re.fullmatch(r"groups\.\d+\.conv\.weight", key)) for key in renamed)
    if "head.weight" in renamed and (groups, *renamed["head.weight"].shape[:1]) == _RNAN_SIZE:
        return _RNAN_RANGE
    warnings.warn(
        "an RNAN without mean shifts does not say its color range: not being of the published size, it is taken to "
        "be for [0, 1]. If it was trained with another, pass rgb_range to load_official.",
        stacklevel=2,
    )
    return 1


def _for_unit_range(state: dict[str, Tensor], rgb_range: float) -> dict[str, Tensor]:
    """Let the head take and the tail return images in [0, 1]: between them nothing changes."""
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
