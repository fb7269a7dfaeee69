"""Networks as plain ``nn.Module``: RGB in [0, 1] in, RGB in [0, 1] out (not clamped)."""

from panet_plugin.archs.pa_edsr import PAEDSR
from panet_plugin.archs.panet import PANet
from panet_plugin.archs.pyramid_attention import PyramidAttention

__all__ = ["PAEDSR", "PANet", "PyramidAttention"]
