"""Building MMagic's archs, BasicSR's as archs of MMagic, and pyramid attention as a plugin layer of mmcv."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import MODELS, WEIGHT_INITIALIZERS
from torch import nn

from panet_plugin import archs
from panet_plugin.frameworks.bridges import BRIDGES
from panet_plugin.frameworks.with_attention import make_with_pyramid_attention


def build_arch(arch: Mapping[str, Any]) -> nn.Module:
    """Build a registered arch of MMagic or this package from ``{"type": name, **arguments}``.

    Raises:
        KeyError: If there is no such arch.
    """
    # Some archs look up their parts in the default scope, which is not MMagic when BasicSR trains.
    return MODELS.build({"_scope_": "mmagic", **arch})


def initialize(network: nn.Module) -> None:
    """Initialize a network as MMEngine's Runner does before training, without logging every parameter."""
    init_weights = getattr(network, "init_weights", None)
    if getattr(network, "is_init", False) or init_weights is None:
        return
    if any(parameter.is_meta for parameter in network.parameters()):
        return  # no values to initialize
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        init_weights()
    finally:
        logger.setLevel(level)


def registered_names() -> set[str]:
    """Return the names of all registered networks and layers."""
    names = (MODELS, MODELS.children["mmagic"], WEIGHT_INITIALIZERS)
    return {name for registry in names for name in registry.module_dict}


def own_archs() -> Iterator[str]:
    """Yield the names of MMagic's own networks and their parts, without losses and trainers."""
    homes = ("mmagic.models.archs.", "mmagic.models.editors.")
    for name, entry in MODELS.children["mmagic"].module_dict.items():
        if inspect.isclass(entry) and entry.__module__.startswith(homes) and not issubclass(entry, BaseModel):
            yield name


@MODELS.register_module()
def BasicSRArch(arch: Mapping[str, Any]) -> nn.Module:
    """Build an arch of BasicSR: the network itself, with its own names of weights.

    Args:
        arch: ``{"type": name, **arguments}``, as ``network_g`` in the options of BasicSR.

    Raises:
        ImportError: If BasicSR is not installed.
        KeyError: If there is no such arch.
    """
    return BRIDGES["basicsr"].build_arch(arch)


WithPyramidAttention = MODELS.register_module(module=make_with_pyramid_attention(build_arch))


@MODELS.register_module()
class PyramidAttention(archs.PyramidAttention):
    """Pyramid attention as a plugin layer of mmcv.

    Args:
        in_channels: Channels of the features, in mmcv's terms.
        **attention: Arguments of :class:`panet_plugin.archs.PyramidAttention`; ``channels`` replaces ``in_channels``.
    """

    _abbr_: ClassVar[str] = "pyramid_attention"

    def __init__(self, in_channels: int | None = None, **attention: Any) -> None:
        channels: dict[str, Any] = {} if in_channels is None else {"channels": in_channels}
        super().__init__(**channels, **attention)


@MODELS.register_module()
class PyramidNonLocal2d(PyramidAttention):
    """Pyramid attention as a replacement of mmcv's ``NonLocal2d``: registered as a layer, and initially the identity.

    Args:
        in_channels: Channels of the features.
        reduction: The embeddings have ``in_channels // reduction`` channels, at least one.
        zeros_init: Start as the identity.
        **attention: Other arguments of :class:`panet_plugin.archs.PyramidAttention`. Those of ``NonLocal2d`` without an
            equivalent (``mode``, ``use_scale``, ``sub_sample``, ``conv_cfg``, ``norm_cfg``, ``std``) are errors.
    """

    _abbr_: ClassVar[str] = "nonlocal_block"

    def __init__(self, in_channels: int, reduction: int = 2, zeros_init: bool = True, **attention: Any) -> None:
        super().__init__(
            in_channels,
            reduction=min(reduction, in_channels),
            residual_init="zero" if zeros_init else None,
            **attention,
        )
