"""Networks as plain ``nn.Module``, from images in [0, 1] to images in [0, 1] (not clamped)."""

from panet_plugin.archs.insertion import insert_pyramid_attention
from panet_plugin.archs.insertion_points import InsertionPoint, InsertionPoints, list_insertion_points
from panet_plugin.archs.pa_edsr import PAEDSR
from panet_plugin.archs.panet import PANet
from panet_plugin.archs.pyramid_attention import PyramidAttention, attention_window
from panet_plugin.archs.rnan import RNAN

__all__ = [
    "PAEDSR",
    "RNAN",
    "InsertionPoint",
    "InsertionPoints",
    "PANet",
    "PyramidAttention",
    "attention_window",
    "insert_pyramid_attention",
    "list_insertion_points",
]
