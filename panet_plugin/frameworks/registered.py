"""Names in descriptions of networks: MMEngine imports and calls whatever a name stands for that is not registered."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import MODELS, WEIGHT_INITIALIZERS


def unregistered(network: Mapping[str, Any], framework: str) -> str:
    """Return the names within ``{"type": name, **arguments}`` that stand for nothing registered, with commas.

    Args:
        network: A network of either framework, with the networks and layers in it.
        framework: ``"basicsr"`` or ``"mmagic"``, whose names are looked up first.
    """
    unknown = set(_types(network))
    # The other framework's come last: it takes seconds to import, and only networks within networks need it.
    for name in sorted(("basicsr", "mmagic"), key=framework.__ne__):
        if unknown:
            unknown -= _registered(name)
    return ", ".join(sorted(unknown))


def _registered(framework: str) -> set[str]:
    importlib.import_module(f"panet_plugin.frameworks.{framework}")
    if framework == "basicsr":
        names = importlib.import_module("basicsr.utils.registry").ARCH_REGISTRY.keys()
        # It looks for NAME_basicsr too.
        return {*names, *(name.removesuffix("_basicsr") for name in names)}
    mmagic = importlib.import_module("mmagic.registry").MODELS
    return {*MODELS.module_dict, *mmagic.module_dict, *WEIGHT_INITIALIZERS.module_dict}


def _types(value: Any) -> Iterator[str]:
    """Yield every name that a registry would look up, or take its classes from."""
    if isinstance(value, Mapping):
        yield from (str(value[key]) for key in ("type", "_scope_") if key in value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _types(item)
