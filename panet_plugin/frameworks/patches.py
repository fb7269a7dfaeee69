"""The side of the patches that a network is trained on, as the configs of both frameworks say it."""

from collections.abc import Mapping
from typing import Any


def patch_of_loader(loader: Any) -> int | None:
    """Return ``patch_size`` of the dataset in a ``train_dataloader`` of MMEngine, in pixels of the input.

    None where nothing of that kind is said, whatever there is instead.
    """
    return _side(innermost_dataset(loader).get("patch_size"))


def innermost_dataset(loader: Any) -> Mapping[str, Any]:
    """Return the dataset of a ``train_dataloader`` that has the images, inside all that wrap others; or nothing."""
    while isinstance(loader, Mapping) and "dataset" in loader:
        loader = loader["dataset"]
    return _mapping(loader)


def patch_of_options(options: Mapping[str, Any]) -> int | None:
    """Return the same for the options of BasicSR, whose ``gt_size`` is that of the ground truth."""
    train = _mapping(_mapping(options.get("datasets")).get("train"))
    return _side(train.get("patch_size")) or _side(train.get("gt_size"), options.get("scale", 1))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _side(value: Any, scale: Any = 1) -> int | None:
    if not all(isinstance(number, int) and number > 0 for number in (value, scale)):
        return None
    return value // scale or None
