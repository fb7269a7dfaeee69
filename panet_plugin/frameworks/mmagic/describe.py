"""Describing the network of an MMEngine config for MMagic."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panet_plugin.errors import CheckpointError
from panet_plugin.frameworks.bridges import ADVICE, Description
from panet_plugin.frameworks.configs import NotPlain, as_mapping, positive_side


def describe(values: Mapping[str, Any], source: Path) -> Description:
    """Read ``model`` and the training data of a config; see :meth:`panet_plugin.frameworks.bridges.Bridge.describe`."""
    model, loader = values.get("model"), values.get("train_dataloader")
    if isinstance(model, NotPlain):
        raise CheckpointError(f"{source}: its model does not consist of plain values ({model}); {ADVICE}")
    generator = as_mapping(model).get("generator")
    if not isinstance(generator, Mapping) or not isinstance(generator.get("type"), str):
        raise CheckpointError(f"{source}: expected a model with a generator in the config; {ADVICE}")
    # MMagic shifts and scales the inputs of networks; inputs here are in [0, 1].
    preprocessor = as_mapping(model).get("data_preprocessor") or {}
    for key, wanted in (("mean", 0), ("std", 255)):
        if any(value != wanted for value in preprocessor.get(key) or ()):
            raise CheckpointError(
                f"{source}: expected a network for images in [0, 1] (mean 0, std 255), but its data_preprocessor has "
                f"the {key} {preprocessor[key]}"
            )
    # If the data are not plain values, they are left out; the network does not depend on them.
    return Description(dict(generator), innermost_dataset(loader).get("task"), patch_of_loader(loader))


def patch_of_loader(loader: Any) -> int | None:
    """Return ``patch_size`` of the dataset in a ``train_dataloader``, in pixels of the input.

    None if the config does not specify it validly.
    """
    return positive_side(innermost_dataset(loader).get("patch_size"))


def innermost_dataset(loader: Any) -> Mapping[str, Any]:
    """Return the innermost dataset of a ``train_dataloader``, without wrappers; or an empty mapping."""
    while isinstance(loader, Mapping) and "dataset" in loader:
        loader = loader["dataset"]
    return as_mapping(loader)
