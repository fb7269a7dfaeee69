"""Transforms for MMagic's pipelines that degrade clean images."""

from typing import Any, ClassVar

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from panet_plugin.data import fresh_rng
from panet_plugin.tasks import Task, image_rng, make_task


def _rgb_or_gray(results: dict[str, Any]) -> np.ndarray:
    """Return ``gt`` as ``(H, W, C)``, three channels in the order RGB."""
    image = np.atleast_3d(results["gt"])
    bgr = image.shape[2] == 3 and results.get("gt_channel_order", "bgr").lower() == "bgr"
    return image[..., ::-1] if bgr else image


@TRANSFORMS.register_module()
class RandomFullRangeGray(BaseTransform):
    """Converts ``gt`` to gray from 0 to 255 by chance, for gray tasks; use it before ``DegradeByTask``.

    The luma that a gray task makes of a color image ranges from 16 to 235. A network that sees nothing else in training
    may fail on gray images and on the luma of JPEG files, which use all values.

    Args:
        prob: Probability, 0 to 1.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Convert ``results["gt"]``, 8- or 16-bit in the order ``gt_channel_order``, to ``(H, W)``."""
        image = _rgb_or_gray(results)
        if results["task"].channels == 1 and image.shape[2] == 3 and fresh_rng().random() < self.prob:
            results["gt"] = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"


@TRANSFORMS.register_module()
class DegradeByTask(BaseTransform):
    """Makes ``img`` from ``gt`` with the sample's task, which ``CleanImageDataset`` adds.

    ``gt`` becomes the task's reference: luma for gray tasks, cropped to a multiple of the scale for super-resolution.
    Use it after crops, flips and transposition, which would change some degradations, such as a Bayer pattern.

    Args:
        seed: For validation: random values depend only on this and the name of the image. ``None``, for training,
            draws new values for every sample.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Degrade ``results["gt"]``: 8- or 16-bit, ``(H, W)`` or ``(H, W, C)`` in the order ``gt_channel_order``."""
        task = self.task_of(results)
        reference = task.reference(_rgb_or_gray(results))
        rng = (
            fresh_rng() if self.seed is None else image_rng(str(results.get("key", results.get("gt_path"))), self.seed)
        )
        results.update(gt=reference, img=task.degrade(reference, rng), scale=task.scale, task=task)
        for key in ("gt", "img"):
            results[f"{key}_channel_order"] = "rgb"
            results[f"{key}_color_type"] = "grayscale" if task.channels == 1 else "color"
        return results

    def task_of(self, results: dict[str, Any]) -> Task:
        """Return the task of a sample."""
        if "task" not in results:
            raise KeyError(
                f"{type(self).__name__}: the sample has no task; use CleanImageDataset, or name a degradation"
            )
        return results["task"]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self.seed})"


class _Degradation(DegradeByTask):
    """A single degradation for any dataset.

    Args:
        seed: See :class:`DegradeByTask`.
        **parameters: Fields of the task.

    Raises:
        ValueError: If there is no such parameter, or a value is out of range.
    """

    name: ClassVar[str]

    def __init__(self, seed: int | None = None, **parameters: Any) -> None:
        super().__init__(seed)
        self.task = make_task(self.name, **parameters)

    def task_of(self, results: dict[str, Any]) -> Task:
        """Return the task of the transform."""
        return self.task

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.task}, seed={self.seed})"


@TRANSFORMS.register_module()
class DownsampleBicubic(_Degradation):
    """MATLAB's bicubic: ``scale``; see :class:`panet_plugin.tasks.SuperResolution`."""

    name = "super_resolution"


@TRANSFORMS.register_module()
class AddGaussianNoise(_Degradation):
    """Noise of ``sigma``, on luma if ``gray``; see :class:`panet_plugin.tasks.Denoising`."""

    name = "denoising"


@TRANSFORMS.register_module()
class MosaicBayer(_Degradation):
    """A sparse Bayer mosaic of a ``pattern``; see :class:`panet_plugin.tasks.Demosaicing`."""

    name = "demosaicing"


@TRANSFORMS.register_module()
class CompressJPEG(_Degradation):
    """JPEG of a ``quality``, of luma if ``luma_only``; see :class:`panet_plugin.tasks.ArtifactReduction`."""

    name = "artifact_reduction"
