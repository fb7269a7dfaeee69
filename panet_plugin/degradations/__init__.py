"""Degradations of clean images, as NumPy arrays."""

from panet_plugin.degradations.jpeg import closest_quality, compress_jpeg
from panet_plugin.degradations.mosaic import mosaic_bayer
from panet_plugin.degradations.noise import add_gaussian_noise
from panet_plugin.degradations.resize import imresize

__all__ = ["add_gaussian_noise", "closest_quality", "compress_jpeg", "imresize", "mosaic_bayer"]
