"""How an image is to be restored: whole, in pieces, in tiles or cut, and what that costs."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from panet_plugin.errors import PanetError
from panet_plugin.inference.cost import Cost
from panet_plugin.inference.cut import count_pieces
from panet_plugin.inference.exact import longest_span
from panet_plugin.inference.probe import Traits
from panet_plugin.inference.tiles import cover

#: Ways to restore an image that can be asked for. ``auto`` is whole where that is affordable, elsewhere in pieces that
#: give what the whole gives, and in tiles with networks of which there are no such pieces.
MODES = ("auto", "whole", "tiles", "chop")

#: Tiles do not become smaller than that, however little memory there is.
LEAST_TILE = 32

#: Bytes that libraries keep, and that bands of an image take in other types, whatever its size: measured.
SLACK = 32e6


class Way(NamedTuple):
    """How an image is restored.

    Attributes:
        mode: ``"whole"``, ``"pieces"``, ``"tiles"`` or ``"chop"``.
        tile: Side of the tiles in pixels.
        overlap: See :func:`panet_plugin.inference.cover`.
        limit: Pixels that a piece of the recursive cut may not reach.
        batch: Images, tiles or pieces that the network is given at once.
        grid: Rows and columns of pieces that give what the whole gives.
        reach: Pixels that such a piece has to see around itself.
    """

    mode: str
    tile: int
    overlap: int
    limit: int
    batch: int
    grid: tuple[int, int] = (1, 1)
    reach: int = 0


class Plan(NamedTuple):
    """A layout for images of one size, and what it costs for one of them.

    Attributes:
        layout: How it is restored.
        parts: Tiles or pieces; 1 for the whole.
        pixels: Pixels that the network will have seen.
        seconds: Estimated time.
        memory: Estimated bytes at most, above the network's own.
        why: Words for the user.
        lacking: The bytes that it takes and the limit, where that is less.
    """

    layout: Way
    parts: int
    pixels: int
    seconds: float
    memory: float
    why: str
    lacking: tuple[float, float] | None = None

    def __str__(self) -> str:
        """Return one line."""
        kinds = {
            "whole": "whole",
            "pieces": f"{self.parts} pieces, as the whole",
            "tiles": f"{self.parts} tiles of up to {self.layout.tile}x{self.layout.tile}",
        }
        kind = kinds.get(self.layout.mode, f"cut into {self.parts} pieces as the original does")
        return f"{kind}, about {duration(self.seconds)} and {size(self.memory)} each{self.why}"


class Buffers(NamedTuple):
    """Bytes of memory that an image takes itself, besides what the network is given and returns.

    Attributes:
        reading: At most while it is read, itself included.
        held: Of the image and its result, while it is restored.
        writing: At most while the result is written, itself included.
    """

    reading: float
    held: float
    writing: float


class Budget(NamedTuple):
    """What images may cost.

    Attributes:
        seconds: Above that, an image is not restored whole if tiles are faster.
        memory: In bytes, for the network, and for the images if they are in the same memory.
        images: In bytes, for the images if they are in another memory; otherwise None.
        strict: Whether that also holds for images that are to be restored whole or cut.
    """

    seconds: float
    memory: float
    images: float | None = None
    strict: bool = True


class TooLargeError(PanetError, ValueError):
    """An image that takes more memory than is allowed."""


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
        height: Of an image, in pixels.
        width: Of an image.
        layout: What is wished for; its mode may be ``"auto"``. Tiles become smaller, and batches too, if that is what
            the memory takes.
        cost: Of the network.
        traits: Of the network.
        budget: What they may cost.
        channels: Of what the network is given.
        views: How often the network sees every part: 8 with self-ensemble.
        buffers: Of an image.
        find_reach: Returns how far beyond itself a piece has to see; None if no piece can give what the whole gives.
            Asked only where the whole is too much.

    Raises:
        TooLargeError: If there is too little memory for an image, however small the tiles.
    """
    grown = traits.scale**2
    # What the network is given, which may be padded, and its result; one more of each while views are added up.
    exchanged = 4 * channels * (2 + grown + (1 + grown if views > 1 else 0))
    whole_pixels = traits.padded(height) * traits.padded(width)

    def needs(count: int, pixels: int, more: float = 0) -> list[tuple[float, float]]:
        """Return the bytes for ``count`` parts at once, and ``more`` of an image, with their limit, in every memory."""
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
            # A quarter of a small tile on each of its borders is enough.
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
        """Return the grid with the fewest pixels to see; None if pieces would see more than nine times their size."""
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
            # The whole image, and what is put together of pieces on every level.
            return plan("chop", parts, pixels, "", 4 * channels * (1 + 4 * grown) * height * width)
        whole = plan("whole", 1, whole_pixels, "")
        if layout.mode == "whole":
            return whole
        if layout.mode == "tiles":
            return tiles("")
        limits = f"the limits are {duration(budget.seconds)} and {size(budget.memory)}"
        why = f"; the whole would take about {duration(whole.seconds)} and {size(whole.memory)}, {limits}"
        tiled = tiles(why)
        if whole.seconds > max(budget.seconds, tiled.seconds):
            return tiled
        if whole.lacking is None:
            slow = "; tiles would take no less" if whole.seconds > budget.seconds else ""
            return whole._replace(why=f" ({limits}{slow})")
        if tiled.lacking:
            return tiled
        reach = find_reach()
        return (pieces(reach, why) if reach is not None else None) or tiled

    chosen = choose()
    if chosen.lacking and (budget.strict or chosen.layout.mode == "tiles"):
        need, limit = chosen.lacking
        raise TooLargeError(
            f"it takes at least {math.ceil(need / 1e6)}M of memory, and the limit is {math.floor(limit / 1e6)}M"
        )
    return chosen


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"
