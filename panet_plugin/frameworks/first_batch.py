"""Checking the first batch of training: networks and scores expect RGB images in [0, 1]."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from panet_plugin.data import BadImageError, read_image
from panet_plugin.frameworks.trainings import TrainingError

logger = logging.getLogger(__name__)

#: Allowed excess over [0, 1]: noise of inputs may be unclipped, and ground truth may overshoot at edges.
INPUT_SLACK, TRUTH_SLACK = 8.0, 0.5


def check_first_batch(
    inputs: Tensor,
    truth: Tensor | None,
    *,
    range_key: str,
    order_key: str,
    bgr: bool = False,
    path: str | None = None,
    certain: bool = True,
) -> None:
    """Check that images have the range [0, 1], not [0, 255], and are RGB, not BGR, if that can be determined.

    The images are BGR if the loader declares it, or if the 8-bit file of the first ground truth has all of their colors
    with red and blue swapped, but fewer than half of them as they are. Crops, flips and transposition do not change
    colors.

    Args:
        inputs: Inputs of the network, ``(N, C, H, W)``.
        truth: Ground truth as passed to the loss.
        range_key: Config key that determines the range, for the message.
        order_key: Config key that determines the order of channels.
        bgr: Whether the loader declares the images as BGR.
        path: File of the first ground truth; None skips the comparison.
        certain: Whether the network is known to expect RGB in [0, 1]; otherwise, only a warning is logged.

    Raises:
        TrainingError: If the images are not as the network expects.
    """
    wrong = _wrong_range(inputs, "input", INPUT_SLACK)
    if truth is not None:
        wrong = wrong or _wrong_range(truth, "ground truth", TRUTH_SLACK)
    if wrong:
        wrong = f"{wrong}: see {range_key}"
    elif bgr:
        wrong = f"BGR, expected RGB: see {order_key}"
    elif truth is not None and path is not None and _is_exchanged(truth, path):
        wrong = f"BGR by comparison with {path}, expected RGB: see {order_key}"
    if wrong and certain:
        raise TrainingError(f"the first batch is {wrong}")
    if wrong:
        logger.warning("the first batch is %s; this is correct only if the network expects it", wrong)
    elif truth is not None and float(truth.max()) <= 1 / 255:
        logger.warning("the first batch is black, or was divided by 255 twice: see %s", range_key)


def _wrong_range(images: Tensor, name: str, slack: float) -> str | None:
    low, high = (float(bound) for bound in images.aminmax())
    return f"of {name} from {low:g} to {high:g}, expected 0 to 1" if low < -slack or high > 1 + slack else None


def _is_exchanged(truth: Tensor, path: str) -> bool:
    if truth.ndim != 4 or truth.shape[1] != 3 or not Path(path).is_file():
        return False
    levels = truth[0].detach().cpu().float().numpy().transpose(1, 2, 0) * 255
    pixels = levels.round().astype(np.int64)
    if np.abs(levels - pixels).max() > 0.01 or pixels.min() < 0 or pixels.max() > 255:
        return False  # not the values of a file
    try:
        image = read_image(path)
    except (BadImageError, OSError):
        return False  # the loader reports the error
    if image.dtype != np.uint8:
        return False
    known = np.zeros(1 << 24, bool)
    known[_colors(image)] = True
    # JPEG decoders may differ by one level, so that some colors are missing even in the correct order.
    return bool(known[_colors(pixels[..., ::-1])].all() and known[_colors(pixels)].mean() < 0.5)


def _colors(rgb: NDArray) -> NDArray[np.int64]:
    return rgb.astype(np.int64) @ (1 << 16, 1 << 8, 1)
