"""Describing the network of a BasicSR option file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panet_plugin.errors import CheckpointError
from panet_plugin.frameworks.bridges import ADVICE, Description
from panet_plugin.frameworks.configs import as_mapping, positive_side


def describe(values: Mapping[str, Any], source: Path) -> Description:
    """Read ``network_g`` and the training data; see :meth:`panet_plugin.frameworks.bridges.Bridge.describe`."""
    network = values.get("network_g")
    if not isinstance(network, Mapping) or not isinstance(network.get("type"), str):
        raise CheckpointError(f"{source}: expected a network_g in the options; {ADVICE}")
    return Description(dict(network), values.get("task"), patch_of_options(values))


def patch_of_options(options: Mapping[str, Any]) -> int | None:
    """Return the side in pixels of the input patches; the options' ``gt_size`` is that of the ground truth.

    None if the options do not specify it validly.
    """
    train = as_mapping(as_mapping(options.get("datasets")).get("train"))
    return positive_side(train.get("patch_size")) or positive_side(train.get("gt_size"), options.get("scale", 1))
