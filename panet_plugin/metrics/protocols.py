"""How the published tables were measured, each protocol once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panet_plugin.metrics.functional import psnr, rgb_to_y, ssim


@dataclass(frozen=True)
class Protocol:
    """One way to score 8-bit images.

    Attributes:
        name: Its key in :data:`PROTOCOLS`.
        channel: ``"y"`` compares the luma of RGB images, ``"all"`` every channel.
        border: Pixels left out along every edge, beyond ``scale``.
        scaled_border: Whether the upscaling factor is added to the border.
        ssim_window: Window of SSIM; see :func:`panet_plugin.metrics.ssim`.
        source: The tables that were measured so.
    """

    name: str
    channel: str
    border: int
    scaled_border: bool
    ssim_window: str
    source: str

    def psnr(self, restored: NDArray[np.uint8], reference: NDArray[np.uint8], scale: int = 1) -> float:
        """Return the PSNR in decibels of ``(H, W)`` gray or ``(H, W, 3)`` RGB images that were rounded to 8 bit."""
        return psnr(*self._compared(restored, reference), self._border(scale))

    def ssim(self, restored: NDArray[np.uint8], reference: NDArray[np.uint8], scale: int = 1) -> float:
        """Return the SSIM of ``(H, W)`` gray or ``(H, W, 3)`` RGB images that were rounded to 8 bit."""
        return ssim(*self._compared(restored, reference), self._border(scale), self.ssim_window)

    def _border(self, scale: int) -> int:
        return self.border + (scale if self.scaled_border else 0)

    def _compared(self, *images: NDArray) -> tuple[NDArray, ...]:
        for image in images:
            if image.dtype != np.uint8:
                raise ValueError(f"{self.name} scores images rounded to 8 bit (see quantize), got {image.dtype}")
        images = tuple(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image for image in images)
        if self.channel == "y":
            # A gray image is luma already.
            return tuple(rgb_to_y(image) if image.ndim == 3 else image for image in images)
        return images


_ALL = (
    Protocol("sr_y", "y", 0, True, "gaussian", "Super-resolution: Set5, Set14, B100, Urban100, Manga109"),
    Protocol("div2k_rgb", "all", 6, True, "gaussian", "Super-resolution: validation on DIV2K, as EDSR"),
    Protocol("dn_rgb", "all", 0, False, "gaussian", "Colour denoising"),
    Protocol("dm_rgb", "all", 0, False, "gaussian", "Demosaicing"),
    Protocol("car_y", "y", 0, False, "uniform8", "JPEG artifact reduction: classic5, LIVE1"),
)

#: Protocols by name.
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
