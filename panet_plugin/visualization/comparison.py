"""Pictures side by side."""

import os
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from numpy.typing import NDArray


def save_comparison(path: str | os.PathLike, rows: Sequence[Mapping[str, NDArray]], title: str = "") -> None:
    """Save a figure with one row per picture and one column per method.

    Args:
        path: Where to; the suffix says the format.
        rows: For every picture its images, ``(H, W)`` or ``(H, W, 3)`` uint8, by caption. All rows have as many.
        title: Stands above all.

    Raises:
        ValueError: If there is nothing to show, or the rows differ in length.
    """
    columns = {len(row) for row in rows}
    if len(columns) != 1 or 0 in columns:
        raise ValueError(f"expected rows of equal length, got {[len(row) for row in rows]}")
    width = columns.pop()
    figure = Figure(figsize=(3.2 * width, 3.4 * len(rows)), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(len(rows), width, squeeze=False)
    for row, images in zip(axes, rows, strict=True):
        for axis, (caption, image) in zip(row, images.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_title(caption, fontsize=9)
            axis.axis("off")
    figure.savefig(path, dpi=150)
