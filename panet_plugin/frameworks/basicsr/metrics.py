"""Metrics of BasicSR's validators that follow the protocols of the published tables."""

from typing import Any

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from panet_plugin.metrics import PROTOCOLS, Protocol


@METRIC_REGISTRY.register()
def calculate_protocol_psnr(
    img: NDArray[np.uint8], img2: NDArray[np.uint8], protocol: str, scale: int = 1, better: str = "higher"
) -> float:
    """Return the PSNR in decibels by one of :data:`panet_plugin.metrics.PROTOCOLS`.

    Args:
        img: Restored image as BasicSR's validators give it: ``(H, W)`` or ``(H, W, 3)`` BGR, rounded to 8 bit.
        img2: Ground truth, likewise.
        protocol: A key of ``PROTOCOLS``.
        scale: Upscaling factor.
        better: Not for us: BasicSR gives every metric the option by which it keeps the best checkpoint.

    Raises:
        ValueError: If there is no such protocol.
    """
    return _protocol(protocol).psnr(_to_rgb(img), _to_rgb(img2), scale)


@METRIC_REGISTRY.register()
def calculate_protocol_ssim(
    img: NDArray[np.uint8], img2: NDArray[np.uint8], protocol: str, scale: int = 1, better: str = "higher"
) -> float:
    """Return the SSIM; arguments and errors as :func:`calculate_protocol_psnr`."""
    return _protocol(protocol).ssim(_to_rgb(img), _to_rgb(img2), scale)


def _protocol(name: Any) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


def _to_rgb(image: NDArray) -> NDArray:
    return image[..., ::-1] if image.ndim == 3 else image
