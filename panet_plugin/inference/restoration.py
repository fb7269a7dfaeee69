"""A picture on its way from one file to another, of which no more than bands are in float32."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from panet_plugin.data.pictures import read_picture
from panet_plugin.files import replacing
from panet_plugin.inference.color import adapt, enlarge
from panet_plugin.inference.jobs import Job
from panet_plugin.inference.pictures import encode_picture
from panet_plugin.memory import give_back
from panet_plugin.pixels import bands, quantize
from panet_plugin.tasks import Task


class Restoration:
    """A picture that is read, restored part by part, and written.

    Args:
        job: From which file to which.
        channels: Of the network: 3 or 1.
        scale: Of the network.
        task: Of the network, if known.

    Attributes:
        job: From which file to which.
        size: Height and width of the picture that was read.

    Raises:
        ValueError: If the file is no picture, or none for the network.
        OSError: If it cannot be read.
    """

    def __init__(self, job: Job, channels: int, scale: int, task: Task | None) -> None:
        self.job = job
        self._source = read_picture(job.source)
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
        """Fill ``(C, h, w)`` with rows and columns of the picture as the network takes it."""
        for band in bands(*images.shape[1:]):
            images[:, band] = self._adapted.read(slice(rows.start + band.start, rows.start + band.stop), columns)

    def take(self, restored: NDArray[np.float32], top: int, left: int) -> None:
        """Take a part ``(C, h, w)`` of the result, which begins at this row and column of it.

        All of these numbers are multiples of the scale.
        """
        scale, source, result = self._scale, self._source.alpha, self._result
        height, width = (side // scale for side in restored.shape[1:])
        columns = slice(left // scale, left // scale + width)
        # They are of the source, and as many as the result's pixels ask for.
        for band in bands(height, width * scale**2):
            rows = slice(top // scale + band.start, top // scale + band.stop)
            place = tuple(slice(part.start * scale, part.stop * scale) for part in (rows, columns))
            pixels = self._adapted.back(restored[:, band.start * scale : band.stop * scale], rows, columns)
            result.pixels[place] = quantize(pixels, result.pixels.dtype)
            if source is not None and result.alpha is not None:
                result.alpha[place] = enlarge(lambda *part: source[part], self.size, scale, rows, columns)
        # The many small arrays of a part would keep as much memory as large ones.
        give_back()

    def write(self) -> list[str]:
        """Write the result, and keep nothing, since memory for what was read would be missing.

        Returns:
            What was lost on the way, and what the user should know.

        Raises:
            ValueError: If the format cannot hold the result.
            OSError: If the file cannot be written.
        """
        result, note = self._result, self._adapted.note
        del self._source, self._adapted, self._result
        give_back()
        with replacing(self.job.target) as stream:
            notes = encode_picture(result, self.job.target.suffix, stream)
        return [*result.notes, *notes, *filter(None, [note])]
