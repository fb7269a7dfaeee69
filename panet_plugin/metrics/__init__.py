"""PSNR and SSIM, and the named protocols by which published tables were measured."""

from panet_plugin.metrics.functional import psnr, quantize, rgb_to_y, ssim
from panet_plugin.metrics.protocols import PROTOCOLS, Protocol

__all__ = ["PROTOCOLS", "Protocol", "psnr", "quantize", "rgb_to_y", "ssim"]
