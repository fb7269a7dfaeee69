"""Building BasicSR's archs, and MMagic's as archs of BasicSR."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from panet_plugin.frameworks.bridges import BRIDGES
from panet_plugin.frameworks.with_attention import make_with_pyramid_attention


def build_arch(arch: Mapping[str, Any]) -> nn.Module:
    """Build a registered arch of BasicSR from ``{"type": name, **arguments}``.

    Unlike BasicSR's ``build_network``, it does not start logging, which only BasicSR's pipelines configure.

    Raises:
        KeyError: If there is no such arch.
    """
    arguments = dict(arch)
    return ARCH_REGISTRY.get(arguments.pop("type"))(**arguments)


def initialize(network: nn.Module) -> None:
    """Do nothing: BasicSR's archs are initialized when they are built."""


def registered_names() -> set[str]:
    """Return the names of all registered archs; BasicSR also looks up ``NAME_basicsr``."""
    names = ARCH_REGISTRY.keys()
    return {*names, *(name.removesuffix("_basicsr") for name in names)}


def own_archs() -> Iterator[str]:
    """Yield the names of BasicSR's own networks and their parts."""
    for name, entry in ARCH_REGISTRY:
        if inspect.isclass(entry) and entry.__module__.startswith("basicsr.archs."):
            yield name


@ARCH_REGISTRY.register()
def MMagicArch(arch: Mapping[str, Any]) -> nn.Module:
    """Build an arch of MMagic: the network itself, with its own names of weights.

    Args:
        arch: ``{"type": name, **arguments}``, as ``model.generator`` in a config of MMagic. It is initialized as by
            MMagic at the start of training.

    Raises:
        ImportError: If MMagic is not installed.
        KeyError: If there is no such arch.
    """
    return BRIDGES["mmagic"].build_arch(arch)


WithPyramidAttention = make_with_pyramid_attention(build_arch)
ARCH_REGISTRY.register(WithPyramidAttention)
