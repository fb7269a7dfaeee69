"""Metrics for BasicSR's validation that follow the protocols of published tables."""

from collections.abc import Callable
from typing import Any

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from panet_plugin.metrics import METRICS, PROTOCOLS


def _make(metric: str) -> Callable[..., float]:
    def calculate(
        img: NDArray[np.uint8], img2: NDArray[np.uint8], protocol: str, scale: int = 1, better: str = "higher"
    ) -> float:
        """Return a metric by one of :data:`panet_plugin.metrics.PROTOCOLS`.

        Args:
            img: Restored image from BasicSR's validation: ``(H, W)`` or ``(H, W, 3)`` BGR, rounded to 8 bits.
            img2: Ground truth, likewise.
            protocol: A key of ``PROTOCOLS``.
            scale: Upscaling factor.
            better: Ignored: BasicSR passes the option by which it keeps the best checkpoint.

        Raises:
            ValueError: If there is no such protocol.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        return PROTOCOLS[protocol].score(metric, _to_rgb(img), _to_rgb(img2), scale)

    calculate.__name__ = calculate.__qualname__ = f"calculate_protocol_{metric.lower()}"
    return METRIC_REGISTRY.register()(calculate) or calculate


#: ``calculate_protocol_psnr`` and so on, one for every metric.
CALCULATIONS: dict[str, Any] = {function.__name__: function for function in map(_make, METRICS)}
calculate_protocol_psnr = CALCULATIONS["calculate_protocol_psnr"]
calculate_protocol_ssim = CALCULATIONS["calculate_protocol_ssim"]


def _to_rgb(image: NDArray) -> NDArray:
    return image[..., ::-1] if image.ndim == 3 else image
