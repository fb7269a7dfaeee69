"""Restoring an image from one file to another; only bands of it are converted to float32 at a time."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from panet_plugin.data.image_reader import read_stored
from panet_plugin.data.image_writer import encode_stored
from panet_plugin.files import replacing
from panet_plugin.inference.color import adapt, enlarge
from panet_plugin.inference.jobs import Job
from panet_plugin.memory import give_back
from panet_plugin.pixels import bands, quantize
from panet_plugin.tasks import Task


class Restoration:
    """An image that is read, restored part by part and written.

    Args:
        job: The input and output files.
        channels: Channels of the network: 3 or 1.
        scale: Scale of the network.
        task: Task of the network, if known.

    Attributes:
        job: The input and output files.
        size: Height and width of the image that was read.

    Raises:
        ValueError: If the file is not an image, or not suitable for the network.
        OSError: If it cannot be read.
    """

    def __init__(self, job: Job, channels: int, scale: int, task: Task | None) -> None:
        self.job = job
        self._source = read_stored(job.source)
        self._adapted = adapt(self._source.pixels, channels, scale, task)
        self._scale = scale
        self.size: tuple[int, int] = self._source.pixels.shape[:2]
        dtype, (height, width) = self._source.pixels.dtype, (side * scale for side in self.size)
        self._result = replace(
            self._source,
            pixels=np.empty((height, width) if self._adapted.gray else (height, width, 3), dtype),
            alpha=None if self._source.alpha is None else np.empty((height, width), dtype),
        )

    def read(self, images: NDArray[np.float32], rows: slice, columns: slice) -> None:
        """Fill ``(C, h, w)`` with rows and columns of the image as input of the network."""
        for band in bands(*images.shape[1:]):
            images[:, band] = self._adapted.read(slice(rows.start + band.start, rows.start + band.stop), columns)

    def take(self, restored: NDArray[np.float32], top: int, left: int) -> None:
        """Store a part ``(C, h, w)`` of the result at a row and column of it.

        Position and size are multiples of the scale.
        """
        scale, source, result = self._scale, self._source.alpha, self._result
        height, width = (side // scale for side in restored.shape[1:])
        columns = slice(left // scale, left // scale + width)
        # Rows of the source, as many as make a band of the result.
        for band in bands(height, width * scale**2):
            rows = slice(top // scale + band.start, top // scale + band.stop)
            place = tuple(slice(part.start * scale, part.stop * scale) for part in (rows, columns))
            pixels = self._adapted.back(restored[:, band.start * scale : band.stop * scale], rows, columns)
            result.pixels[place] = quantize(pixels, result.pixels.dtype)
            if source is not None and result.alpha is not None:
                result.alpha[place] = enlarge(lambda *part: source[part], self.size, scale, rows, columns)
        # The allocator would keep the memory of many small arrays.
        give_back()

    def write(self) -> list[str]:
        """Write the result and release all memory of the image.

        Returns:
            Notes for the user, such as what was lost.

        Raises:
            ValueError: If the format cannot hold the result.
            OSError: If the file cannot be written.
        """
        result, note = self._result, self._adapted.note
        del self._source, self._adapted, self._result
        give_back()
        with replacing(self.job.target) as stream:
            notes = encode_stored(result, self.job.target.suffix, stream)
        return [*result.notes, *notes, *filter(None, [note])]
