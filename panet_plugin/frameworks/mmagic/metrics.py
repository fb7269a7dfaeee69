"""Metrics for MMagic's validation that follow the protocols of published tables."""

import math
from typing import Any

import numpy as np
from mmagic.evaluation.metrics.base_sample_wise_metric import BaseSampleWiseMetric
from mmengine.registry import METRICS
from numpy.typing import NDArray
from torch import Tensor

from panet_plugin import metrics
from panet_plugin.metrics import PROTOCOLS, Protocol, quantize


class _ProtocolMetric(BaseSampleWiseMetric):
    """Scores every image with one of :data:`panet_plugin.metrics.PROTOCOLS`, on the CPU in float64.

    Predictions are rounded to 8 bits, and nonfinite ones score NaN. The ground truth is cropped to the size of the
    prediction. Scale and order of channels are those of the sample.

    Args:
        protocol: A key of ``PROTOCOLS``; ``None`` for the protocol of the sample's task, which
            ``PackInputs(meta_keys=["task"])`` passes on.
        **kwargs: Arguments of MMagic's ``BaseSampleWiseMetric``, such as ``prefix``.

    Raises:
        ValueError: If there is no such protocol.
    """

    def __init__(self, protocol: str | None = None, **kwargs: Any) -> None:
        if protocol is not None and protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        super().__init__(**kwargs)
        self.protocol = protocol

    def process(self, data_batch: Any, data_samples: list[dict]) -> None:
        """Score the images of a batch."""
        for sample in data_samples:
            # The order of the ground truth, to which MMagic's data preprocessor has converted the prediction.
            order = sample.get(f"{self.gt_key}_output_channel_order")
            restored = _to_rgb(sample["output"][self.pred_key], order)
            height, width = restored.shape[:2]
            reference = _to_rgb(sample[self.gt_key], order)[:height, :width]
            scale = round(height / sample["input"].shape[-2])
            protocol = self._protocol_of(sample)
            # In 8 bits, NaN would become a valid color.
            finite = bool(sample["output"][self.pred_key].isfinite().all())
            score = protocol.score(self.metric, restored, reference, scale) if finite else math.nan
            self.results.append({self.metric: score})

    def _protocol_of(self, sample: dict) -> Protocol:
        if self.protocol is not None:
            return PROTOCOLS[self.protocol]
        if "task" not in sample:
            raise KeyError(f'{type(self).__name__}: set a protocol, or keep the task: PackInputs(meta_keys=["task"])')
        return sample["task"].protocol


#: ``ProtocolPSNR`` and so on, one class for every metric.
CLASSES: dict[str, Any] = {
    f"Protocol{name}": type(f"Protocol{name}", (_ProtocolMetric,), {"metric": name, "__module__": __name__})
    for name in metrics.METRICS
}
for _metric in CLASSES.values():
    METRICS.register_module(module=_metric)
ProtocolPSNR, ProtocolSSIM = CLASSES["ProtocolPSNR"], CLASSES["ProtocolSSIM"]


def _to_rgb(image: Tensor, order: str | None) -> NDArray[np.uint8]:
    array = quantize(image.detach().cpu().double().permute(1, 2, 0).numpy() / 255)
    if array.shape[2] != 3:
        return array
    name = str(order).upper()
    if name not in ("RGB", "BGR"):
        raise ValueError(f"channel order of the sample: expected RGB or BGR, got {order!r}")
    return array[..., ::-1] if name == "BGR" else array
