"""Clean image to degraded image, NumPy in and NumPy out."""

from .resize import imresize

__all__ = ["imresize"]
