"""Building BasicSR's archs, and MMagic's as archs of BasicSR."""

import importlib
from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from panet_plugin.frameworks.with_attention import make_with_pyramid_attention


def build_arch(arch: Mapping[str, Any]) -> nn.Module:
    """Build a registered arch of BasicSR from ``{"type": name, **arguments}``.

    Unlike BasicSR's ``build_network`` it does not start the log, whose place only BasicSR's pipelines know.

    Raises:
        KeyError: If there is no such arch.
    """
    arguments = dict(arch)
    return ARCH_REGISTRY.get(arguments.pop("type"))(**arguments)


@ARCH_REGISTRY.register()
def MMagicArch(arch: Mapping[str, Any]) -> nn.Module:
    """Build an arch of MMagic by its own name and arguments: that network itself, with the names of its weights.

    Args:
        arch: ``{"type": name, **arguments}``, as ``model.generator`` in a config of MMagic. It is initialised as
            MMagic does at the start of a training.

    Raises:
        ImportError: If MMagic is not installed.
        KeyError: If there is no such arch.
    """
    mmagic = importlib.import_module("panet_plugin.frameworks.mmagic.archs")
    network = mmagic.build_arch(arch)
    mmagic.initialise(network)
    return network


WithPyramidAttention = make_with_pyramid_attention(build_arch)
ARCH_REGISTRY.register(WithPyramidAttention)
