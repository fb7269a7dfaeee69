"""Interactive pages with the attention of the pixel under the pointer."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from tqdm import tqdm

from panet_plugin.data.images import encode_image
from panet_plugin.errors import VisualizationError
from panet_plugin.visualization.attention import AttentionProbe, View

#: Limits of a page, to keep it below 8 MB with 28 bytes per match and 4.1 per pixel.
MAX_POINTS, MAX_MATCHES, MAX_PIXELS = 5_000, 20, 1_000_000

#: Number of weights that are computed at a time.
_BLOCK = 4_000_000


def grid(width: int, height: int, every: int) -> list[tuple[int, int]]:
    """Return x and y of every ``every``-th pixel in both directions, row by row, centered in the image.

    Raises:
        VisualizationError: If ``every`` is less than 1.
    """
    if every < 1:
        raise VisualizationError(f"the distance of the grid's pixels must be at least 1, got {every}")
    columns, rows = (range((side - 1) % every // 2, side, every) for side in (width, height))
    return [(x, y) for y in rows for x in columns]


def attention_page(
    probe: AttentionProbe, points: Sequence[tuple[int, int]], name: str, matches: int = 8, progress: bool = False
) -> str:
    """Return a self-contained page that shows the best matches of the pixel under the pointer.

    It works with a mouse, touch, and the arrow keys.

    Args:
        probe: The probe of the image.
        points: Column x and row y of the selectable pixels, 1 to :data:`MAX_POINTS`.
        name: Name of the image in the page.
        matches: Number of matches to show, 1 to :data:`MAX_MATCHES`.
        progress: Show a progress bar.

    Returns:
        HTML of less than 8 MB; about 250 kB for 256 pixels of a 256x256 image.

    Raises:
        VisualizationError: If a number is outside its range, the image has more than :data:`MAX_PIXELS` pixels, or a
            pixel is outside it.
    """
    pixels = probe.image.shape[0] * probe.image.shape[1]
    for what, count, limit in (
        ("selectable pixels", len(points), MAX_POINTS),
        ("matches", matches, MAX_MATCHES),
        ("pixels in the image", pixels, MAX_PIXELS),
    ):
        if not 1 <= count <= limit:
            raise VisualizationError(f"a page can have 1 to {limit:,} {what}, got {count:,}")
    views: list[dict[str, Any]] = []
    block = max(1, _BLOCK // sum(probe.positions))
    with tqdm(total=len(points), unit="pixel", disable=not progress) as bar:
        for start in range(0, len(points), block):
            views += map(_plain, probe.views(points[start : start + block], matches))
            bar.update(min(block, len(points) - start))
    around = f", in a square of {probe.window}x{probe.window} pixels around it," if probe.window else ""
    corner = [probe.match(level, 0, 0, 0.0) for level in range(len(probe.scales))]
    content = {
        "title": f"{name}: attention of {probe.block}",
        "explanation": (
            f"Point at a pixel, or move with the arrow keys. The block compares the pixel's patch with "
            f"{max(view['seen'] for view in views):,} patches{around} on {len(probe.scales)} levels of the image's "
            f"pyramid. The up to {matches} patches with the largest weights are shown with their extent in the image. "
            "The bars show weights relative to the first; the last column shows weights relative to the weight if all "
            f"patches were equal. Computed at {len(points):,} pixels; the nearest one is shown."
        ),
        "size": probe.image.shape[1::-1],
        "ksize": probe.ksize,
        "own": [probe.ksize * side for side in probe.stride[::-1]],
        "levels": [
            {"scale": f"{match.scale:g}", "step": [match.width / probe.ksize, match.height / probe.ksize]}
            for match in corner
        ],
        "points": views,
        "image": f"data:image/png;base64,{base64.b64encode(encode_image(probe.image)).decode()}",
    }
    template = files(__package__).joinpath("attention_page.html").read_text(encoding="utf-8")
    return template.replace("{{data}}", _json(content))


def _plain(view: View) -> dict[str, Any]:
    """Return the parts of a view that the page shows."""
    return {
        "at": [view.x, view.y],
        "seen": view.seen,
        "matches": [[match.level, match.row, match.column, _short(match.weight)] for match in view.matches],
        "shares": [_short(level.sum()) for level in view.weights],
    }


def _short(weight: float) -> float:
    """Return a weight rounded to three digits, as shown by the page."""
    return float(f"{weight:.3g}")


def _json(content: dict[str, Any]) -> str:
    """Return JSON that cannot end the page's element around it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
