"""Clean image to degraded image, NumPy in and NumPy out."""

from panet_plugin.degradations.resize import imresize

__all__ = ["imresize"]
