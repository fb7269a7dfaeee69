"""A look at the first batch of a training: images in [0, 1] and RGB, as networks and scores here expect them."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from panet_plugin.data import BadImageError, read_image
from panet_plugin.frameworks.trainings import TrainingError

logger = logging.getLogger(__name__)

#: How far values may lie outside [0, 1]: noise of an input may not be clipped, ground truth may overshoot at edges.
INPUT_SLACK, TRUTH_SLACK = 8.0, 0.5


def check_first_batch(
    inputs: Tensor,
    truth: Tensor | None,
    *,
    range_key: str,
    order_key: str,
    bgr: bool = False,
    picture: str | None = None,
    certain: bool = True,
) -> None:
    """Tell a range of 0 to 255 from one of 0 to 1, and BGR from RGB, where that can be known.

    The order is known where the loader says it, or where the file of the first ground truth, of 8 bits, has all colors
    with red and blue exchanged, and less than half of them as they are. To cut, flip or transpose changes no colors.

    Args:
        inputs: ``(N, C, H, W)`` as the network gets them.
        truth: The ground truth as the loss gets it.
        range_key: What the range depends on, for the message.
        order_key: What the order of channels depends on.
        bgr: The loader says that they are BGR.
        picture: Path of the file of the first ground truth; no file, no comparison.
        certain: The network is for RGB in [0, 1]. Otherwise there is only a warning.

    Raises:
        TrainingError: If the images are not what the network is for.
    """
    wrong = _wrong_range(inputs, "input", INPUT_SLACK)
    if truth is not None:
        wrong = wrong or _wrong_range(truth, "ground truth", TRUTH_SLACK)
    if wrong:
        wrong = f"{wrong}: see {range_key}"
    elif bgr:
        wrong = f"BGR, expected RGB: see {order_key}"
    elif truth is not None and picture is not None and _is_exchanged(truth, picture):
        wrong = f"BGR by comparison with {picture}, expected RGB: see {order_key}"
    if wrong and certain:
        raise TrainingError(f"the first batch is {wrong}")
    if wrong:
        logger.warning("the first batch is %s; right only if the network is for that", wrong)
    elif truth is not None and float(truth.max()) <= 1 / 255:
        logger.warning("the first batch is black, or was divided by 255 twice: see %s", range_key)


def _wrong_range(images: Tensor, name: str, slack: float) -> str | None:
    low, high = (float(bound) for bound in images.aminmax())
    return f"of {name} from {low:g} to {high:g}, expected 0 to 1" if low < -slack or high > 1 + slack else None


def _is_exchanged(truth: Tensor, picture: str) -> bool:
    if truth.ndim != 4 or truth.shape[1] != 3 or not Path(picture).is_file():
        return False
    levels = truth[0].detach().cpu().float().numpy().transpose(1, 2, 0) * 255
    pixels = levels.round().astype(np.int64)
    if np.abs(levels - pixels).max() > 0.01 or pixels.min() < 0 or pixels.max() > 255:
        return False  # not those of a file
    try:
        image = read_image(picture)
    except (BadImageError, OSError):
        return False  # the loader says why
    if image.dtype != np.uint8:
        return False
    known = np.zeros(1 << 24, bool)
    known[_colors(image)] = True
    # Decoders of JPEG may differ by a level, so that some colors are missing in the right order, too.
    return bool(known[_colors(pixels[..., ::-1])].all() and known[_colors(pixels)].mean() < 0.5)


def _colors(rgb: NDArray) -> NDArray[np.int64]:
    return rgb.astype(np.int64) @ (1 << 16, 1 << 8, 1)
