"""Figures as in papers: an image with a box, and the contents of the box as restored by every method."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from panet_plugin.errors import VisualizationError

#: Longer side of a crop in inches.
_CROP = 2.1

#: Characters of the note per inch.
_LETTERS = 14

_BOX = "#ff3b30"


class Box(NamedTuple):
    """A part of an image, in pixels.

    Attributes:
        x: First column.
        y: First row.
        width: Number of columns.
        height: Number of rows.
    """

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Panel:
    """A method's result, or the degraded input of methods.

    Attributes:
        name: Title of the crop.
        image: ``(H, W)`` or ``(H, W, C)`` uint8; it may be smaller than the ground truth by an integer factor.
        psnr: Decibels; None if there is no score.
        ssim: Up to 1.
    """

    name: str
    image: NDArray[np.uint8]
    psnr: float | None = None
    ssim: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The content of a figure for one image.

    Attributes:
        name: Name of the image.
        reference: Ground truth ``(H, W)`` or ``(H, W, C)``, uint8.
        box: The enlarged part.
        panels: The versions of the image.
    """

    name: str
    reference: NDArray[np.uint8]
    box: Box
    panels: Sequence[Panel]


def choose_box(reference: NDArray[np.uint8], images: Sequence[NDArray[np.uint8]], multiple: int = 1) -> Box:
    """Find the square, with a sixth of the shorter side, in which the errors of images differ most.

    Args:
        reference: Ground truth ``(H, W)`` or ``(H, W, C)``.
        images: Restored images with the same shape. For a single one, the square with the largest error is found.
        multiple: Position and side are multiples of this, the factor of super-resolution.

    Returns:
        The square; the first one on ties.
    """
    height, width = reference.shape[:2]
    side = max(multiple, min(max(min(height, width) // 6, 24), height, width) // multiple * multiple)
    errors = []
    for image in images:
        squares = (image.astype(np.float64) - reference).reshape(height, width, -1) ** 2
        sums = cv2.integral(squares.sum(-1))
        errors.append(sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side])
    # Each entry is the sum over the square that starts there.
    spread = (np.max(errors, axis=0) - (np.min(errors, axis=0) if len(errors) > 1 else 0))[::multiple, ::multiple]
    y, x = np.unravel_index(np.argmax(spread), spread.shape)
    return Box(int(x) * multiple, int(y) * multiple, side, side)


def comparison_figure(comparisons: Sequence[Comparison], note: str = "") -> Figure:
    """Draw each image with its box and, beside it, the box's contents in the ground truth and in every version.

    Args:
        comparisons: One or more images.
        note: Text below the images; it should explain the scores.

    Returns:
        The figure; see :func:`panet_plugin.visualization.save_figure`.

    Raises:
        VisualizationError: If there is nothing to show, a box is not inside its image, or the size of the ground truth
            is not a multiple of a version's.
    """
    if not comparisons:
        raise VisualizationError("expected at least one image to compare")
    sizes = [_sizes(comparison) for comparison in comparisons]
    heights = [rows * (height + 0.55) for rows, _, height, *_ in sizes]
    width = max(whole + columns * (crop + 0.1) for _, columns, _, crop, whole in sizes) + 0.2
    lines = textwrap.wrap(note, int(width * _LETTERS))
    figure = Figure(figsize=(width, sum(heights) + 0.2 + 0.17 * len(lines)), layout="constrained")
    parts = figure.subfigures(len(comparisons), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, comparison, size in zip(parts, comparisons, sizes, strict=True):
        _draw(part, comparison, *size)
    figure.supxlabel("\n".join(lines), fontsize=9)
    return figure


def _sizes(comparison: Comparison) -> tuple[int, int, float, float, float]:
    """Return rows and columns of crops, and in inches: height and width of a crop, and width of the whole image."""
    height, width = comparison.reference.shape[:2]
    box = comparison.box
    if min(box) < 0 or min(box[2:]) < 1 or box.x + box.width > width or box.y + box.height > height:
        raise VisualizationError(
            f"{comparison.name}: the box of {box.width}x{box.height} pixels at ({box.x}, {box.y}) is not inside the "
            f"image, which has {width}x{height}"
        )
    for panel in comparison.panels:
        factor = height // max(panel.image.shape[0], 1)
        if tuple(side * factor for side in panel.image.shape[:2]) != (height, width):
            raise VisualizationError(
                f"{comparison.name}: {panel.name} has {panel.image.shape[1]}x{panel.image.shape[0]} pixels, of which "
                f"{width}x{height} is not a multiple"
            )
    count = 1 + len(comparison.panels)
    rows = 1 if count < 4 else 2
    longer = max(box.width, box.height)
    crop = _CROP * box.width / longer, _CROP * box.height / longer
    tall = rows * (crop[1] + 0.55) - 0.3
    return rows, math.ceil(count / rows), crop[1], crop[0], min(tall * width / height, 3 * tall)


def _draw(figure: FigureBase, comparison: Comparison, rows: int, columns: int, _: float, crop: float, whole: float):
    reference, box = comparison.reference, comparison.box
    cells = figure.add_gridspec(rows, 1 + columns, width_ratios=[whole] + [crop] * columns)
    axis = figure.add_subplot(cells[:, 0])
    _show(axis, reference)
    # The frame is outside the box.
    axis.add_patch(
        Rectangle((box.x - 1, box.y - 1), box.width + 1, box.height + 1, fill=False, edgecolor=_BOX, linewidth=2)
    )
    # Names are not parsed as formulas.
    axis.set_xlabel(comparison.name, fontsize=10, parse_math=False)
    scores = [(panel.psnr, panel.ssim) for panel in comparison.panels if panel.psnr is not None]
    best = max((f"{psnr:.2f}" for psnr, _ in scores), key=float, default=None)
    for index, panel in enumerate([Panel("ground truth", reference), *comparison.panels]):
        axis = figure.add_subplot(cells[index // columns, 1 + index % columns])
        factor = reference.shape[0] // panel.image.shape[0]
        _show(axis, panel.image, factor)
        axis.set(xlim=(box.x - 0.5, box.x + box.width - 0.5), ylim=(box.y + box.height - 0.5, box.y - 0.5))
        for spine in axis.spines.values():
            spine.set_visible(True)
            spine.set_color(_BOX)
        axis.set_title(panel.name, fontsize=10, pad=3, parse_math=False)
        if index == 0:
            axis.set_xlabel("PSNR / SSIM", fontsize=10)
        elif panel.psnr is None:
            axis.set_xlabel(f"1/{factor} of the size" if factor > 1 else "no score", fontsize=10)
        else:
            weight = "bold" if f"{panel.psnr:.2f}" == best else "normal"
            axis.set_xlabel(f"{panel.psnr:.2f} dB / {panel.ssim:.4f}", fontsize=10, fontweight=weight)


def _show(axis: Axes, image: NDArray, factor: int = 1) -> None:
    height, width = (side * factor for side in image.shape[:2])
    axis.imshow(
        image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(-0.5, width - 0.5, height - 0.5, -0.5)
    )
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
