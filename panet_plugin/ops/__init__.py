"""Attention as functions of tensors: no weights, no framework."""

from panet_plugin.ops.functional import IMPLEMENTATIONS, pyramid_attention
from panet_plugin.ops.non_local import non_local_attention
from panet_plugin.ops.pyramid import DEFAULT_SCALES, build_pyramid

__all__ = ["DEFAULT_SCALES", "IMPLEMENTATIONS", "build_pyramid", "non_local_attention", "pyramid_attention"]
