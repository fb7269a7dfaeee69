"""How an image is to be restored: whole, in pieces, in tiles or cut, and what that costs."""

from collections.abc import Callable
from typing import Any, NamedTuple

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


class Layout(NamedTuple):
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
        memory: Estimated bytes above the network's own.
        why: Words for the user.
    """

    layout: Layout
    parts: int
    pixels: int
    seconds: float
    memory: float
    why: str

    def __str__(self) -> str:
        """Return one line."""
        kinds = {
            "whole": "whole",
            "pieces": f"{self.parts} pieces, as the whole",
            "tiles": f"{self.parts} tiles of up to {self.layout.tile}x{self.layout.tile}",
        }
        kind = kinds.get(self.layout.mode, f"cut into {self.parts} pieces as the original does")
        return f"{kind}, about {duration(self.seconds)} and {size(self.memory)} each{self.why}"


class Budget(NamedTuple):
    """What one image may cost.

    Attributes:
        seconds: Above that, an image is not restored whole if tiles are faster.
        memory: In bytes.
    """

    seconds: float
    memory: float


def make_plan(
    height: int,
    width: int,
    layout: Layout,
    cost: Cost,
    traits: Traits,
    budget: Budget,
    channels: int,
    views: int,
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
        budget: What one image may cost.
        channels: Of the images.
        views: How often the network sees every part: 8 with self-ensemble.
        find_reach: Returns how far beyond itself a piece has to see; None if no piece can give what the whole gives.
            Asked only where the whole is too much.
    """
    # The image and the result as float32, and another result while tiles or views are added up.
    buffers = 4 * channels * height * width * (1 + 2 * traits.scale**2)
    whole_pixels = traits.padded(height) * traits.padded(width)

    def plan(mode: str, parts: int, pixels: int, why: str, **changes: Any) -> Plan:
        each = cost.memory(pixels)
        batch = int(max(1, min(layout.batch, (budget.memory - buffers) // max(each, 1))))
        chosen = layout._replace(mode=mode, batch=batch, **changes)
        seconds, seen = views * parts * cost.seconds(pixels), views * parts * pixels
        return Plan(chosen, parts, seen, seconds, buffers + each, why)

    def tiles(why: str) -> Plan:
        side = max(LEAST_TILE, layout.tile) if layout.mode == "auto" else layout.tile
        while side > LEAST_TILE and buffers + cost.memory(traits.padded(side) ** 2) > budget.memory:
            side -= 8
        side = max(traits.multiple, side // traits.multiple * traits.multiple)
        # A quarter of a small tile on each of its borders is enough.
        overlap = layout.overlap if side == layout.tile else min(layout.overlap, side // 4)
        rows, columns = cover(height, side, overlap), cover(width, side, overlap)
        pixels = traits.padded(rows.tile) * traits.padded(columns.tile)
        return plan("tiles", len(rows.starts) * len(columns.starts), pixels, why, tile=side, overlap=overlap)

    def pieces(reach: int, why: str) -> Plan | None:
        """Return the grid with the fewest pixels to see; None if pieces would see more than nine times their size."""
        fitting, least = [], max(LEAST_TILE, reach)
        for rows in range(1, height // least + 1):
            high = longest_span(height, rows, reach)
            for columns in range(1, width // least + 1):
                pixels = high * longest_span(width, columns, reach)
                if buffers + cost.memory(pixels) <= budget.memory:
                    fitting.append((rows * columns * pixels, rows, columns, pixels))
                    break
        if not fitting:
            return None
        _, rows, columns, pixels = min(fitting)
        return plan("pieces", rows * columns, pixels, why, grid=(rows, columns), reach=reach)

    if layout.mode == "chop":
        parts, pixels = count_pieces(height, width, traits.scale, layout.limit)
        return plan("chop", parts, pixels, "")
    whole = plan("whole", 1, whole_pixels, "")
    if layout.mode == "whole":
        return whole
    limits = f"{duration(budget.seconds)} and {size(budget.memory)}"
    if layout.mode == "tiles":
        return tiles("")
    why = f"; the whole would take about {duration(whole.seconds)} and {size(whole.memory)}, the limits are {limits}"
    tiled = tiles(why)
    if whole.seconds > max(budget.seconds, tiled.seconds):
        return tiled
    if whole.memory <= budget.memory:
        slow = "; tiles would take no less" if whole.seconds > budget.seconds else ""
        return whole._replace(why=f" (the limits are {limits}{slow})")
    reach = find_reach()
    return (pieces(reach, why) if reach is not None else None) or tiled


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 1):.0f} MB"
