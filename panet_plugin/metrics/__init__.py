"""PSNR and SSIM, of images and of batches of tensors, and the protocols by which published tables were measured."""

from panet_plugin.metrics.batched import batched_psnr, batched_rgb_to_y, batched_ssim
from panet_plugin.metrics.functional import psnr, ssim
from panet_plugin.metrics.protocols import PROTOCOLS, Protocol
from panet_plugin.pixels import quantize, rgb_to_y

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "batched_psnr",
    "batched_rgb_to_y",
    "batched_ssim",
    "psnr",
    "quantize",
    "rgb_to_y",
    "ssim",
]
