"""Figures of restored images and of pyramid attention."""

from panet_plugin.errors import VisualizationError
from panet_plugin.visualization.attention import AttentionProbe, Match, View, attention_weights, takes_gray
from panet_plugin.visualization.attention_figures import attention_figure
from panet_plugin.visualization.attention_pages import attention_page, grid
from panet_plugin.visualization.comparison import Box, Comparison, Panel, choose_box, comparison_figure
from panet_plugin.visualization.figures import save_figure

__all__ = [
    "AttentionProbe",
    "Box",
    "Comparison",
    "Match",
    "Panel",
    "View",
    "VisualizationError",
    "attention_figure",
    "attention_page",
    "attention_weights",
    "choose_box",
    "comparison_figure",
    "grid",
    "save_figure",
    "takes_gray",
]
