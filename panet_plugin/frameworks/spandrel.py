"""The bridge to spandrel, with which ComfyUI, chaiNNer and others load models: ``install()`` adds the networks."""

import math
from collections.abc import Callable
from typing import Any

from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor, SizeRequirements, StateDict
from torch import nn

from panet_plugin.archs import PAEDSR, RNAN, PANet, PyramidAttention
from panet_plugin.weights import identify, load_official

__all__ = ["install"]

#: Name of a network in spandrel, and tag with its depth.
_KNOWN: dict[type[nn.Module], tuple[str, Callable[[Any], str]]] = {
    PANet: ("PANet", lambda network: f"{len(network.body.blocks) - 1}nb"),
    PAEDSR: ("PA-EDSR", lambda network: f"{len(network.body.blocks) - 1}nb"),
    RNAN: ("RNAN", lambda network: f"{len(network.groups) + 2}ng"),
}


def install() -> list[ArchSupport]:
    """Add PANet, PA-EDSR and RNAN to spandrel's ``MAIN_REGISTRY``; calling it again changes nothing.

    Checkpoints of the originals and of this project are recognized by the names of their weights and loaded strictly.
    Settings that names and shapes do not determine are as published, see :func:`panet_plugin.weights.load_official`,
    unless a safetensors file of :func:`panet_plugin.weights.write_checkpoint` records them. The window of attention is
    the size of the training patches, if known; for the originals, it is the published one.

    Returns:
        The added architectures.
    """
    archs = (_Arch(network_class) for network_class in _KNOWN)
    return MAIN_REGISTRY.add(*map(ArchSupport.from_architecture, archs), ignore_duplicates=True)


class _Arch(Architecture[nn.Module]):
    def __init__(self, network_class: type[nn.Module]) -> None:
        self._depth = _KNOWN[network_class][1]
        super().__init__(
            id=network_class.__name__,
            name=_KNOWN[network_class][0],
            detect=lambda state: identify(state) is network_class,
        )

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[nn.Module]:
        """Load a state dict strictly; errors are :class:`panet_plugin.weights.CheckpointError`."""
        network: Any = load_official(state_dict)
        for module in network.modules():
            # Programs use tiles that are larger than the training patches.
            if isinstance(module, PyramidAttention) and module.window is None:
                module.window = network.trained_patch
        state = network.state_dict()
        mid_channels, channels = state["head.weight"].shape[:2]
        scale = math.prod(layer.upscale_factor for layer in network.modules() if isinstance(layer, nn.PixelShuffle))
        return ImageModelDescriptor(
            network,
            state,
            architecture=self,
            purpose="Restoration" if scale == 1 else "SR",
            tags=[f"{mid_channels}nf", self._depth(network)],
            # Half precision is untested with the published weights, and RNAN's features are for colors up to 255.
            supports_half=False,
            supports_bfloat16=True,
            scale=scale,
            input_channels=channels,
            output_channels=channels,
            size_requirements=SizeRequirements(minimum=_smallest_side(network)),
        )


def _smallest_side(network: nn.Module) -> int:
    """Return the smallest side in pixels for which every pyramid level has a pixel."""
    scales = [scale for module in network.modules() if isinstance(module, PyramidAttention) for scale in module.scales]
    return math.ceil(1 / min(scales, default=1))
