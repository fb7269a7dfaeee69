"""The protocols of published tables, each defined once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panet_plugin.metrics.functional import batched_psnr, batched_rgb_to_y, batched_ssim, of_images
from panet_plugin.pixels import rgb_to_y

#: Metrics by name: functions that return the scores ``(N,)`` of two batches ``(N, C, H, W)`` on the 0..255 scale, given
#: a border and a protocol.
METRICS: dict[str, Callable[[Tensor, Tensor, int, "Protocol"], Tensor]] = {
    "PSNR": lambda restored, reference, border, protocol: batched_psnr(restored, reference, border),
    "SSIM": lambda restored, reference, border, protocol: batched_ssim(
        restored, reference, border, protocol.ssim_window
    ),
}


@dataclass(frozen=True)
class Protocol:
    """A protocol for scoring 8-bit images.

    Attributes:
        name: Its key in :data:`PROTOCOLS`.
        channel: ``"y"`` compares the luma of RGB images, ``"all"`` every channel.
        border: Pixels left out along every edge, in addition to ``scaled_border``.
        scaled_border: Whether the upscaling factor is added to the border.
        ssim_window: Window of SSIM; see :func:`panet_plugin.metrics.ssim`.
        source: The tables that were measured with it.
        rounding: Rounding of a network's output before scoring; see :func:`panet_plugin.metrics.quantize`.
    """

    name: str
    channel: str
    border: int
    scaled_border: bool
    ssim_window: str
    source: str
    rounding: ClassVar[str] = "clipped and rounded to 8 bit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", f"{self.source}.")

    def score(self, metric: str, restored: NDArray[np.uint8], reference: NDArray[np.uint8], scale: int = 1) -> float:
        """Return a metric of images that were rounded to 8 bits.

        Args:
            metric: A key of :data:`METRICS`.
            restored: ``(H, W)`` gray or ``(H, W, 3)`` RGB.
            reference: The same shape.
            scale: Upscaling factor.

        Raises:
            ValueError: If the images are not 8-bit, their shapes differ or they are too small.
        """
        return of_images(METRICS[metric], *self._compared(restored, reference), self.total_border(scale), self)

    def batched_score(self, metric: str, restored: Tensor, reference: Tensor, scale: int = 1) -> Tensor:
        """Return :meth:`score` ``(N,)`` of uint8 tensors ``(N, 1, H, W)`` gray or ``(N, 3, H, W)`` RGB."""
        return METRICS[metric](*self._compared_tensors(restored, reference), self.total_border(scale), self)

    def psnr(self, restored: NDArray[np.uint8], reference: NDArray[np.uint8], scale: int = 1) -> float:
        """Return the PSNR in decibels; see :meth:`score`."""
        return self.score("PSNR", restored, reference, scale)

    def ssim(self, restored: NDArray[np.uint8], reference: NDArray[np.uint8], scale: int = 1) -> float:
        """Return the SSIM; see :meth:`score`."""
        return self.score("SSIM", restored, reference, scale)

    def batched_psnr(self, restored: Tensor, reference: Tensor, scale: int = 1) -> Tensor:
        """Return the PSNR in decibels; see :meth:`batched_score`."""
        return self.batched_score("PSNR", restored, reference, scale)

    def batched_ssim(self, restored: Tensor, reference: Tensor, scale: int = 1) -> Tensor:
        """Return the SSIM; see :meth:`batched_score`."""
        return self.batched_score("SSIM", restored, reference, scale)

    def total_border(self, scale: int = 1) -> int:
        """Return the number of pixels left out along every edge."""
        return self.border + (scale if self.scaled_border else 0)

    def _compared(self, *images: NDArray) -> tuple[NDArray, NDArray]:
        self._must_be_8_bit(images, np.uint8)
        first, second = (image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image for image in images)
        if self.channel == "y":
            # Gray images are luma already.
            first, second = (rgb_to_y(image) if image.ndim == 3 else image for image in (first, second))
        return first, second

    def _compared_tensors(self, *images: Tensor) -> tuple[Tensor, Tensor]:
        self._must_be_8_bit(images, torch.uint8)
        first, second = images
        if self.channel == "y":
            first, second = (batched_rgb_to_y(image) if image.shape[1] == 3 else image for image in images)
        return first, second

    def _must_be_8_bit(self, images: tuple[NDArray | Tensor, ...], uint8: type[np.uint8] | torch.dtype) -> None:
        for image in images:
            if image.dtype != uint8:
                raise ValueError(f"{self.name} scores images rounded to 8 bit (see quantize), got {image.dtype}")


_ALL = (
    Protocol("sr_y", "y", 0, True, "gaussian", "Super-resolution: Set5, Set14, B100, Urban100, Manga109"),
    Protocol("div2k_rgb", "all", 6, True, "gaussian", "Super-resolution: validation on DIV2K, as EDSR"),
    Protocol("dn_rgb", "all", 0, False, "gaussian", "Denoising: Kodak24, BSD68, Urban100 in RGB; gray images alike"),
    Protocol("dm_rgb", "all", 0, False, "gaussian", "Demosaicing: McMaster18, Kodak24, BSD68, Urban100"),
    Protocol("car_y", "y", 0, False, "uniform8", "JPEG artifact reduction: classic5, LIVE1"),
)

#: Protocols by name.
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}
