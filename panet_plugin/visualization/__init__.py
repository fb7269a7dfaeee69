"""Figures of restored images."""

from panet_plugin.visualization.comparison import save_comparison

__all__ = ["save_comparison"]
