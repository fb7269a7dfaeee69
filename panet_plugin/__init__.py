"""Pyramid Attention Networks for image restoration (arXiv 2004.13824) for BasicSR and MMagic.

Importing this package imports no framework; the bridges are
:mod:`panet_plugin.frameworks.basicsr` and :mod:`panet_plugin.frameworks.mmagic`.
"""

__version__ = "0.2.0"
