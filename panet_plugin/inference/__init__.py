"""Restoring images with a trained network."""

from panet_plugin.inference.restorer import Restorer

__all__ = ["Restorer"]
