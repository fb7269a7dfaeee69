"""The arch ``WithPyramidAttention`` of both frameworks, which inserts pyramid attention from a config."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from panet_plugin.archs import insert_pyramid_attention
from panet_plugin.archs.insertion_points import DEFAULT_INPUT


def make_with_pyramid_attention(build_arch: Callable[[Mapping[str, Any]], nn.Module]) -> Callable[..., nn.Module]:
    """Return ``WithPyramidAttention`` for the framework of ``build_arch``."""

    def WithPyramidAttention(
        arch: Mapping[str, Any],
        at: str | Sequence[str],
        where: str = "after",
        residual_init: str | None = None,
        attention: Mapping[str, Any] | None = None,
        input_shape: Sequence[int] = DEFAULT_INPUT,
    ) -> nn.Module:
        """Build a registered arch with pyramid attention inserted: the network itself, with the blocks in it.

        Args:
            arch: ``{"type": name, **arguments}`` of any registered arch.
            at: Dotted path of a module, or several; an empty list leaves the arch unchanged.
            where: ``"after"``, ``"before"`` or ``"replace"``.
            residual_init: With ``"zero"``, the blocks start as the identity.
            attention: Other arguments of :class:`panet_plugin.archs.PyramidAttention`.
            input_shape: Shape of an input that the network accepts.

        Raises:
            KeyError: If there is no such arch.
            TypeError: If the arch or the attention has no such argument.
            ValueError: As :func:`panet_plugin.archs.insert_pyramid_attention`.
        """
        network = build_arch(arch)
        if not at:
            return network
        return insert_pyramid_attention(
            network, at, where, input_shape=input_shape, residual_init=residual_init, **(attention or {})
        )

    return WithPyramidAttention
