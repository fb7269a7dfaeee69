"""Figures of the attention of a pixel."""

from __future__ import annotations

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from panet_plugin.visualization.attention import AttentionProbe, Match, View

#: Weights below this fraction of the largest have the lowest color.
_LOWEST = 1e-4

#: Width of a figure in inches.
_WIDTH = 13.0

#: Patches per row.
_PATCHES = 7

#: Side of the area shown around a patch's center, in sides of the pixel's patch.
_REACH = 4.5

_COLORS = colormaps["inferno"]
_OWN, _BEST = "#00d5ff", "#ff3b30"


def attention_figure(probe: AttentionProbe, view: View) -> Figure:
    """Draw the image with the pixel, the weights of every pyramid level over it, and the best matches.

    All levels have the same logarithmic color scale.

    Args:
        probe: The probe of the image.
        view: A result of the probe.

    Returns:
        The figure; see :func:`panet_plugin.visualization.save_figure`.
    """
    height, width = probe.image.shape[:2]
    columns = min(1 + len(view.weights), 3 if len(view.weights) < 6 else 4)
    rows = math.ceil((1 + len(view.weights)) / columns)
    # Inches of the panels and their titles; very tall images are shown smaller than possible.
    above = rows * (min((_WIDTH - 1) / columns * height / width, 5) + 0.35)
    below = math.ceil((1 + len(view.matches)) / _PATCHES) * (_WIDTH / _PATCHES + 0.6)
    figure = Figure(figsize=(_WIDTH, above + below + 0.5), layout="constrained")
    figure.suptitle(
        f"Attention of {probe.block} at pixel ({view.x}, {view.y}), among {view.seen:,} patches of "
        f"{len(view.weights)} pyramid level{'s'[: len(view.weights) > 1]}",
        fontsize=13,
    )
    maps, patches = figure.subfigures(2, 1, squeeze=False, height_ratios=[above, below])[:, 0]
    _draw_maps(maps, _axes(maps, rows, columns), probe, view)
    _draw_patches(_axes(patches, math.ceil((1 + len(view.matches)) / _PATCHES), _PATCHES), probe, view)
    return figure


def _axes(figure: FigureBase, rows: int, columns: int) -> list[Axes]:
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set(xticks=[], yticks=[], facecolor="#d5d5d5")
        axis.spines[:].set_visible(False)
        axis.set_visible(False)
    return axes


def _draw_maps(figure: FigureBase, axes: list[Axes], probe: AttentionProbe, view: View) -> None:
    _show(axes[0], probe.image)
    _box(axes[0], view, _OWN)
    axes[0].plot(view.x, view.y, "+", color=_OWN, markersize=14)
    axes[0].set_title("input, with the pixel", fontsize=10)
    weighty = np.concatenate([level[level > 0] for level in view.weights])
    largest = float(weighty.max())
    lowest = max(float(weighty.min()), largest * _LOWEST)
    # A color scale needs two different ends.
    lowest = min(lowest, largest * 0.99)
    norm = LogNorm(lowest, largest)
    extent = (-0.5, probe.extent[0] - 0.5, probe.extent[1] - 0.5, -0.5)
    dimmed = probe.image.mean(axis=-1, keepdims=True) * 0.5
    for index, (axis, weights) in enumerate(zip(axes[1:], view.weights, strict=False)):
        _show(axis, dimmed)
        shade = norm(np.maximum(weights, lowest)).data
        # Transparent, since the lower end of the color scale is black.
        opacity = 0.85 * np.clip(4 * shade, 0, 1)
        axis.imshow(_COLORS(shade), alpha=opacity, extent=extent, interpolation="nearest")
        axis.set(xlim=(-0.5, probe.image.shape[1] - 0.5), ylim=(probe.image.shape[0] - 0.5, -0.5))
        axis.plot(view.x, view.y, "+", color=_OWN, markersize=14)
        for number, match in enumerate(view.matches, 1):
            if match.level == index:
                _box(axis, match, _BEST)
                axis.annotate(
                    str(number), (match.x, match.y), (4, 4), textcoords="offset points", fontsize=8, color="white",
                    bbox={"boxstyle": "round,pad=0.15", "facecolor": _BEST, "linewidth": 0},
                )  # fmt: skip
        share = _percent(float(weights.sum())) if not probe.hard else f"{np.count_nonzero(weights)} best"
        axis.set_title(f"level {index + 1}, scale {probe.scales[index]:g}: {share} of the weight", fontsize=10)
    bar = figure.colorbar(ScalarMappable(norm, _COLORS), ax=axes, fraction=0.02, pad=0.01)
    bar.set_label("weight of a patch, logarithmic", fontsize=10)
    even = 1 / view.seen
    if lowest < even < largest:
        bar.ax.axhline(even, color=_OWN, linewidth=2)
        bar.ax.annotate(
            "even", (0, even), (-3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=9,
            ha="right", va="center",
        )  # fmt: skip


def _draw_patches(axes: list[Axes], probe: AttentionProbe, view: View) -> None:
    # The same area around every patch, so that their sizes can be compared.
    reach = max(view.width, view.height) * _REACH
    shown: list[View | Match] = [view, *view.matches]
    for number, (axis, patch) in enumerate(zip(axes, shown, strict=False)):
        _show(axis, probe.image)
        axis.set(xlim=(patch.x - reach, patch.x + reach), ylim=(patch.y + reach, patch.y - reach))
        _box(axis, patch, _BEST if number else _OWN)
        if isinstance(patch, Match):
            title = (
                f"{number}: weight {_percent(patch.weight)}\nscale {patch.scale:g} at ({patch.x:.1f}, {patch.y:.1f})"
            )
        else:
            title = f"the pixel's own patch\nat ({patch.x}, {patch.y})"
        axis.set_title(title, fontsize=10)


def _show(axis: Axes, image: NDArray) -> None:
    axis.set_visible(True)
    axis.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def _box(axis: Axes, patch: View | Match, color: str) -> None:
    corner = (patch.x - patch.width / 2, patch.y - patch.height / 2)
    axis.add_patch(Rectangle(corner, patch.width, patch.height, fill=False, edgecolor=color, linewidth=1.5))


def _percent(weight: float) -> str:
    return f"{100 * weight:.3g} %"
