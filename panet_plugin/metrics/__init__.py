"""PSNR and SSIM of images and of batches of tensors, and the protocols of published tables."""

from panet_plugin.metrics.functional import batched_psnr, batched_rgb_to_y, batched_ssim, psnr, ssim
from panet_plugin.metrics.protocols import METRICS, PROTOCOLS, Protocol
from panet_plugin.pixels import quantize, rgb_to_y

__all__ = [
    "METRICS",
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
