"""Figures of restored images, and of where pyramid attention looks."""

from panet_plugin.visualization.attention import AttentionProbe, Match, View, attention_weights, takes_gray
from panet_plugin.visualization.attention_figure import attention_figure
from panet_plugin.visualization.attention_page import attention_page, grid
from panet_plugin.visualization.comparison import save_comparison
from panet_plugin.visualization.errors import VisualizationError
from panet_plugin.visualization.figures import save_figure

__all__ = [
    "AttentionProbe",
    "Match",
    "View",
    "VisualizationError",
    "attention_figure",
    "attention_page",
    "attention_weights",
    "grid",
    "save_comparison",
    "save_figure",
    "takes_gray",
]
