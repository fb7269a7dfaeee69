"""Planning how to restore an image: whole, in pieces, in tiles or chopped, with the estimated cost."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from panet_plugin.errors import PanetError
from panet_plugin.inference.buffers import Buffers
from panet_plugin.inference.chopping import count_pieces
from panet_plugin.inference.cost import Cost
from panet_plugin.inference.exact import longest_span
from panet_plugin.inference.probe import Traits
from panet_plugin.inference.tiles import cover

#: Selectable modes. ``auto`` restores whole images within the limits, otherwise pieces with the same result, or tiles
#: if the network has no such pieces.
MODES = ("auto", "whole", "tiles", "chop")

#: Smallest side of automatically chosen tiles.
LEAST_TILE = 32

#: Bytes that libraries keep and that bands of an image need in other types, independent of its size: measured.
SLACK = 32e6


class Way(NamedTuple):
    """How an image is restored.

    Attributes:
        mode: ``"whole"``, ``"pieces"``, ``"tiles"`` or ``"chop"``.
        tile: Side of the tiles in pixels.
        overlap: See :func:`panet_plugin.inference.cover`.
        limit: For ``"chop"``: pieces have fewer pixels than this.
        batch: Images, tiles or pieces per batch.
        grid: Rows and columns of pieces.
        reach: Context of a piece on each side, in pixels.
    """

    mode: str
    tile: int
    overlap: int
    limit: int
    batch: int
    grid: tuple[int, int] = (1, 1)
    reach: int = 0


class Plan(NamedTuple):
    """How to restore images of one size, and the cost of one of them.

    Attributes:
        layout: How to restore the images.
        parts: Number of tiles or pieces; 1 for whole images.
        pixels: Pixels that the network processes.
        seconds: Estimated time.
        memory: Estimated peak memory in bytes, without the network's weights.
        why: Explanation for the user.
        lacking: Required bytes and the limit, if the limit is lower.
    """

    layout: Way
    parts: int
    pixels: int
    seconds: float
    memory: float
    why: str
    lacking: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return a description of one line."""
        kinds = {
            "whole": "whole",
            "pieces": f"{self.parts} pieces with the same result as the whole",
            "tiles": f"{self.parts} tiles of up to {self.layout.tile}x{self.layout.tile}",
        }
        kind = kinds.get(self.layout.mode, f"chopped into {self.parts} pieces as by the original")
        return f"{kind}, about {duration(self.seconds)} and {size(self.memory)} each{self.why}"


class Budget(NamedTuple):
    """Limits of the cost of an image.

    Attributes:
        seconds: Images that take longer are not restored whole if tiles are faster.
        memory: Bytes for the network, and for the images if they share its memory.
        images: Bytes for the images if they are in another memory; otherwise None.
        strict: Whether the memory limits also apply to the modes ``"whole"`` and ``"chop"``.
    """

    seconds: float
    memory: float
    images: float | None = None
    strict: bool = True


class TooLargeError(PanetError, ValueError):
    """An image requires more memory than allowed."""


def make_plan(
    height: int,
    width: int,
    layout: Way,
    cost: Cost,
    traits: Traits,
    budget: Budget,
    channels: int,
    views: int,
    buffers: Buffers,
    find_reach: Callable[[], int | None],
) -> Plan:
    """Choose how to restore images of one size.

    Args:
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        layout: The requested settings; the mode may be ``"auto"``. Tiles and batches are reduced to fit the memory.
        cost: Cost of the network.
        traits: Traits of the network.
        budget: Limits of the cost.
        channels: Channels of the network's input.
        views: Number of times that the network processes every part: 8 with self-ensemble.
        buffers: Memory for an image.
        find_reach: Returns the context that a piece needs on each side; None if pieces cannot give the result of the
            whole. Called only if the whole image exceeds the budget.

    Raises:
        TooLargeError: If there is too little memory for an image, even with the smallest tiles.
    """
    grown = traits.scale**2
    # The network's input, which may be padded, and its result; one more of each while views are averaged.
    exchanged = 4 * channels * (2 + grown + (1 + grown if views > 1 else 0))
    whole_pixels = traits.padded(height) * traits.padded(width)

    def needs(count: int, pixels: int, more: float = 0) -> list[tuple[float, float]]:
        """Return required bytes and limit of every memory, for ``count`` parts at once and ``more`` bytes per image."""
        images = count if pixels == whole_pixels else 1
        working, network = images * buffers.held + count * exchanged * pixels + more, count * cost.memory(pixels)
        if budget.images is None:
            return [(SLACK + max(buffers.reading, working + network, buffers.writing), budget.memory)]
        return [(SLACK + max(buffers.reading, working, buffers.writing), budget.images), (network, budget.memory)]

    def fits(count: int, pixels: int, more: float = 0) -> bool:
        return all(need <= limit for need, limit in needs(count, pixels, more))

    def plan(mode: str, parts: int, pixels: int, why: str, more: float = 0, **changes: Any) -> Plan:
        batch = next((count for count in range(layout.batch, 0, -1) if fits(count, pixels, more)), 1)
        seconds, seen = views * parts * cost.seconds(pixels), views * parts * pixels
        memory = needs(1, pixels, more)
        lacking = next((pair for pair in memory if pair[0] > pair[1]), None)
        chosen = layout._replace(mode=mode, batch=batch, **changes)
        return Plan(chosen, parts, seen, seconds, sum(need for need, _ in memory), why, lacking)

    def tiles(why: str) -> Plan:
        side = max(LEAST_TILE, layout.tile) if layout.mode == "auto" else layout.tile
        while True:
            used = max(traits.multiple, side // traits.multiple * traits.multiple)
            # For small tiles, a quarter of the tile is enough.
            overlap = layout.overlap if used == layout.tile else min(layout.overlap, used // 4)
            rows, columns = cover(height, used, overlap), cover(width, used, overlap)
            pixels = traits.padded(rows.tile) * traits.padded(columns.tile)
            # Rows of tiles are blended, two at a time.
            blended = 2 * 4 * channels * grown * rows.tile * width
            parts = len(rows.starts) * len(columns.starts)
            tiled = plan("tiles", parts, pixels, why, blended, tile=used, overlap=overlap)
            if tiled.lacking is None or side <= LEAST_TILE:
                return tiled
            side -= 8

    def pieces(reach: int, why: str) -> Plan | None:
        """Return the grid with the fewest pixels in total; None if a piece would need more than nine times its size."""
        fitting, least = [], max(LEAST_TILE, reach)
        widths = [longest_span(width, columns, reach) for columns in range(1, width // least + 1)]
        for rows in range(1, height // least + 1):
            high = longest_span(height, rows, reach)
            for columns, wide in enumerate(widths, start=1):
                if fits(1, high * wide):
                    fitting.append((rows * columns * high * wide, rows, columns, high * wide))
                    break
        if not fitting:
            return None
        _, rows, columns, pixels = min(fitting)
        return plan("pieces", rows * columns, pixels, why, grid=(rows, columns), reach=reach)

    def choose() -> Plan:
        if layout.mode == "chop":
            parts, pixels = count_pieces(height, width, traits.scale, layout.limit)
            # The whole image, and the results assembled from pieces at every level.
            return plan("chop", parts, pixels, "", 4 * channels * (1 + 4 * grown) * height * width)
        whole = plan("whole", 1, whole_pixels, "")
        if layout.mode == "whole":
            return whole
        if layout.mode == "tiles":
            return tiles("")
        limits = f"the limits are {duration(budget.seconds)} and {size(budget.memory)}"
        why = f"; the whole image would take about {duration(whole.seconds)} and {size(whole.memory)}, {limits}"
        tiled = tiles(why)
        if whole.seconds > max(budget.seconds, tiled.seconds):
            return tiled
        if whole.lacking is None:
            slow = "; tiles would not be faster" if whole.seconds > budget.seconds else ""
            return whole._replace(why=f" ({limits}{slow})")
        if tiled.lacking:
            return tiled
        reach = find_reach()
        return (pieces(reach, why) if reach is not None else None) or tiled

    chosen = choose()
    if chosen.lacking and (budget.strict or chosen.layout.mode == "tiles"):
        need, limit = chosen.lacking
        raise TooLargeError(
            f"it requires at least {math.ceil(need / 1e6)}M of memory, the limit is {math.floor(limit / 1e6)}M"
        )
    return chosen


def duration(seconds: float) -> str:
    """Format a time in a suitable unit."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: float) -> str:
    """Format a number of bytes in a suitable unit."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"
