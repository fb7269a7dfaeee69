"""What picture files tell about the level of their degradation."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from panet_plugin.data.pictures import picture_head, read_picture
from panet_plugin.degradations import closest_quality
from panet_plugin.inference.colour import adapt
from panet_plugin.pixels import PEAK
from panet_plugin.tasks import ArtifactReduction, Denoising, Task

#: Below it an estimate is that of the finest texture as well as of noise.
LEAST_SIGMA = 2


class Level(NamedTuple):
    """The level of a degradation, as a picture's file tells it.

    Attributes:
        value: Of the parameter ``strength`` of the task; None if the file does not tell it.
        how: Where it is from, or why there is none.
        exact: Whether a network for one level can be held to it.
    """

    value: float | None
    how: str
    exact: bool = True


def read_channels(path: Path) -> int:
    """Return 1 for a gray picture, else 3; errors as :func:`read_level`."""
    with picture_head(path) as head:
        return 1 if Image.getmodebase(head.mode) == "L" else 3


def read_level(path: Path, task: Task) -> Level:
    """Read the level of a degradation from a picture's file.

    Args:
        path: The file.
        task: One with a ``strength``.

    Raises:
        BadImageError: If the file is damaged or no image.
        OSError: If it cannot be read.
    """
    return _READERS[task.name](path, task)


def _read_quality(path: Path, task: Task) -> Level:
    """Return the quality of a JPEG file by the quantization table of its luma."""
    with picture_head(path) as head:
        if not isinstance(head, JpegImageFile):
            return Level(None, f"no quantization tables in a {head.format} file")
        # The first component is the luma, and the last that is known of it is the number of its table.
        table = head.quantization.get(head.layer[0][-1])
        if table is None:
            return Level(None, "its quantization tables are missing")
        quality, exact = closest_quality(table)
        return Level(quality, "from its quantization tables" if exact else "the closest to its quantization tables")


def _estimate_sigma(path: Path, task: Task) -> Level:
    """Return the standard deviation of the noise that a network for the task will be given, on the 0..255 scale."""
    # Nothing else needs it, and its import takes long.
    from skimage.restoration import estimate_sigma

    image = adapt(read_picture(path).pixels, task.channels, task=task).read(slice(None), slice(None))
    with warnings.catch_warnings():
        # Of a flat channel, which has no noise, and of pictures that are as narrow as channels are few.
        warnings.simplefilter("ignore")
        sigma = round(PEAK * np.nan_to_num(estimate_sigma(image, channel_axis=0)).mean())
    how = "estimated from its pixels"
    return Level(sigma, f"{how}, in which there is hardly any noise" if sigma < LEAST_SIGMA else how, exact=False)


_READERS: dict[str, Callable[[Path, Task], Level]] = {
    Denoising.name: _estimate_sigma,
    ArtifactReduction.name: _read_quality,
}
