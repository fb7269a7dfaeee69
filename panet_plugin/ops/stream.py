"""Pyramid attention in blocks of queries and keys: linear memory, plain PyTorch, any device.

A score is a sum over patch offsets of products of pixels in which query and key shift together: a sum along diagonals,
like that of pasted weights. Therefore, patches are never unfolded: pixels are multiplied once and the products summed
(:class:`_Diagonals`). A block is a tile of queries and all keys that one of them sees, processed in bands of keys whose
data fit into the cache. docs/attention.md has the formulas.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.problem import Gradients, Problem, Saved
from panet_plugin.ops.pyramid import overlap_divisor
from panet_plugin.ops.window import Visible, seen_along

#: Pixels of a tile of queries and of a band of keys. Larger ones have less overhead for margins, smaller ones fit into
#: a CPU's cache; other devices need fewer and larger operations.
CPU_BLOCK = 256, 2048
OTHER_BLOCK = 1024, 2**14
#: Maximum number of scores of a tile with all keys that it sees: tiles are smaller if there are very many keys.
MAX_SCORES = 2**25


name = "stream"


def why_not(problem: Problem) -> str | None:
    """Return None: every problem is supported."""
    return None


def forward(problem: Problem) -> tuple[Tensor, Saved]:
    """Compute pyramid attention ``(N, D, H, W)`` and the values for its backward pass."""
    output, normalizer = (
        _stack(result) for result in zip(*(sample.forward() for sample in _samples(problem)), strict=True)
    )
    return output, Saved(normalizer)


def backward(grad: Tensor, problem: Problem, saved: Saved) -> Gradients:
    """Return the gradients, computing the scores again.

    Args:
        grad: Gradient of the output, ``(N, D, H, W)``.
        problem: As given to :func:`forward`. If ``hard``, only the gradients of the values are nonzero.
        saved: From :func:`forward`.
    """
    results = [
        sample.backward(*tensors) for sample, *tensors in zip(_samples(problem), grad, saved.normalizer, strict=True)
    ]
    d_keys, d_scales, d_values = (
        [_stack(level) for level in zip(*each, strict=True)]
        for each in zip(*(levels for _, *levels in results), strict=True)
    )
    return _stack([d_query for d_query, *_ in results]), d_keys, d_scales, d_values


def _samples(problem: Problem) -> Iterator["_Sample"]:
    """Yield every element of the batch."""
    visible = problem.visible, problem.visible_on(problem.query.device)
    keys, scales, values = (zip(*level, strict=True) for level in (problem.keys, problem.scales, problem.values))
    for query, key, scale, value in zip(problem.query, keys, scales, values, strict=True):
        yield _Sample(query, key, scale, value, problem.ksize, problem.hard, *visible)


def _stack(images: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    # torch.stack would keep our order of dimensions in memory.
    return torch.stack(images).contiguous()


class _Level:
    """One level of the pyramid as images ``(h, w, C)`` with a margin, or its gradients.

    ``radius`` zeros surround keys and values, and both sides of the scales.
    """

    def __init__(self, key: Tensor, scale: Tensor, value: Tensor, radius: int) -> None:
        self.height, self.width = key.shape[-2:]
        self.radius = radius
        self.keys, self.values = (F.pad(x, (radius,) * 4).permute(1, 2, 0).contiguous() for x in (key, value))
        self.scale = F.pad(scale[0], (radius, radius))

    def zeros_like(self) -> "_Level":
        """Return a level of zeros of the same layout."""
        level = copy.copy(self)
        level.keys, level.scale, level.values = (torch.zeros_like(x) for x in (self.keys, self.scale, self.values))
        return level

    def restore(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, scale and values as images ``(C, h, w)``."""
        rows, columns = (slice(self.radius, self.radius + side) for side in (self.height, self.width))
        keys, values = (x[rows, columns].permute(2, 0, 1) for x in (self.keys, self.values))
        return keys, self.scale[None, :, columns], values


class _Band(NamedTuple):
    """A rectangle of keys of one level: some of the image rows that a tile of queries sees.

    It includes a margin of ``radius`` pixels: pixels of the level, or zeros beyond its edges.
    """

    level: int
    rows: slice
    columns: slice
    radius: int

    @property
    def height(self) -> int:
        """Image rows without margin."""
        return self.rows.stop - self.rows.start

    @property
    def stride(self) -> int:
        """Distance of image rows, including the margins of both sides."""
        return self.columns.stop - self.columns.start + 2 * self.radius

    def of(self, level: _Level) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of the keys and values ``(height + 2 * radius, stride, C)``, and scales ``(height, stride)``."""
        tall, wide = (slice(side.start, side.stop + 2 * self.radius) for side in (self.rows, self.columns))
        return level.keys[tall, wide], level.values[tall, wide], level.scale[self.rows, wide]


class _Tile(NamedTuple):
    """A tile of queries.

    Attributes:
        wide: Position in a laid-out image, with the margin.
        inner: The same without the margin.
        bands: All keys that one of its queries sees.
        hidden: With a window, masks for every level of the rows that rows of queries do not see, and of the columns
            that columns of queries do not see.
    """

    wide: tuple[slice, slice]
    inner: tuple[slice, slice]
    bands: list[_Band]
    hidden: list[tuple[Tensor, Tensor]]


class _Diagonals:
    """Sums along the diagonals of the products of a tile and a band, and their adjoint.

    ``products`` is the matrix of all pixels of both with their margins. A step along the horizontal diagonal, to the
    next query and the next key, is a step of one row and one column in that matrix. Beyond the first or last column of
    the band it leads into the band's margin, whose sums are not used and whose weights are zero.

    Args:
        tile: Height and width without margin.
        rows: Image rows of the band without margin.
        stride: Distance of the band's image rows.
        radius: Of a patch.
        scratch: Memory for ``products`` and for sums along one dimension only.
    """

    def __init__(
        self, tile: tuple[int, int], rows: int, stride: int, radius: int, scratch: tuple[Tensor, Tensor]
    ) -> None:
        height, width = tile
        wide_width, columns = width + 2 * radius, (rows + 2 * radius) * stride
        size = (height + 2 * radius) * wide_width * columns
        # `radius` elements before and after, for the steps beyond the first and the last column.
        flat = scratch[0][: size + 2 * radius]
        whole = flat[radius : size + radius].view(-1, wide_width, columns)
        half = scratch[1][: (height + 2 * radius) * width * columns].view(-1, width, columns)
        self.products, self.half = whole.flatten(0, 1), half.flatten(1)
        self.horizontal = [
            flat.as_strided(self.half.shape, (wide_width * columns, 1), i * (columns + 1))
            for i in range(2 * radius + 1)
        ]
        self.vertical = [half[i : i + height, :, i * stride : (i + rows) * stride] for i in range(2 * radius + 1)]
        # The elements that the middle one of `vertical` or `horizontal` leaves out.
        inner, margin = half[radius : radius + height], radius * stride
        self.around_vertical = [
            half[:radius],
            half[radius + height :],
            inner[..., :margin],
            inner[..., columns - margin :],
        ]
        self.around_horizontal = [whole[:, :radius], whole[:, radius + width :]]
        self.ends = [flat[:radius], flat[size + radius :]]

    def sum(self, out: Tensor) -> None:
        """Write ``sum_d products[p + d, l + d]`` over the offsets d of a patch to ``out``, queries x keys."""
        for end in self.ends:
            end.zero_()
        _add_up(self.horizontal, self.half)
        _add_up(self.vertical, out.view_as(self.vertical[0]))

    def spread(self, weights: Tensor) -> None:
        """Write ``sum_d weights[p - d, l - d]`` to ``products``."""
        _add_to_all(self.vertical, self.around_vertical, weights.view_as(self.vertical[0]))
        _add_to_all(self.horizontal, self.around_horizontal, self.half)


def _add_up(terms: Sequence[Tensor], out: Tensor) -> None:
    """Write the sum of all terms."""
    if len(terms) == 1:
        out.copy_(terms[0])
        return
    torch.add(terms[0], terms[1], out=out)
    for term in terms[2:]:
        out += term


def _add_to_all(targets: Sequence[Tensor], around: Sequence[Tensor], source: Tensor) -> None:
    """Write the source to the middle target and zeros around it, then add it to the other targets."""
    middle = len(targets) // 2
    targets[middle].copy_(source)
    for border in around:
        border.zero_()
    for i, target in enumerate(targets):
        if i != middle:
            target += source


class _Sample:
    """One element of the batch, laid out for blocks.

    All tiles have the same size; beyond the image there are zeros.
    """

    def __init__(
        self,
        query: Tensor,
        keys: Sequence[Tensor],
        scales: Sequence[Tensor],
        values: Sequence[Tensor],
        ksize: int,
        hard: bool,
        visible: Sequence[Visible] | None,
        visible_there: Sequence[Visible] | None,
    ) -> None:
        #: The same on the CPU and, for masks, on the device of the tensors.
        self.visible, self.visible_there = visible, visible_there
        #: Factor of scores, since the exponential has base 2.
        self.unit = 1.0 if hard else math.log2(math.e)
        self.divisor, self.hard, self.radius = overlap_divisor(ksize), hard, ksize // 2
        self.levels = [_Level(*level, self.radius) for level in zip(keys, scales, values, strict=True)]
        self.height, self.width = query.shape[-2:]
        area, self.band_size = CPU_BLOCK if query.is_cpu else OTHER_BLOCK
        self._choose(area)
        if self.most_scores > MAX_SCORES:
            # A smaller tile does not see more than this one.
            self._choose(max(1, MAX_SCORES * math.prod(self.tile) // self.most_scores))
        self.query = self._lay_out(query)
        #: Infinite where there is no query: added to a normalizer, it makes all weights zero.
        self.void = self._lay_out(torch.zeros_like(query[:1]), math.inf)
        tile_height, tile_width = self.tile
        tall, wide = tile_height + 2 * self.radius, tile_width + 2 * self.radius
        # Excess pixels of bands, which consist of whole rows.
        columns = max(
            min((height + 2 * self.radius) * stride, self.band_size + (2 * self.radius + 1) * stride)
            for height, stride in self.largest
        )
        # Scratch memory shared by all bands, so that it stays in cache.
        self.scratch = (
            query.new_empty(tall * wide * columns + 2 * self.radius),
            query.new_empty(tall * tile_width * columns),
        )
        self.diagonals: dict[tuple[int, int], _Diagonals] = {}

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the output ``(D, H, W)`` and the normalizer ``(H, W)``."""
        output = self._zeros(self.levels[0].values.shape[-1])
        normalizer = torch.zeros_like(self.void)
        memory = self._memory()
        for tile in self._tiles():
            query, void = self._pixels(self.query[tile.wide]), self._pixels(self.void[tile.inner])
            peaks, totals = [], []
            weights = self._matrices(memory, tile.bands)
            for band, weight in zip(tile.bands, weights, strict=True):
                keys, _, scale = band.of(self.levels[band.level])
                self._sum_patches(band, query, keys, weight)
                weight *= scale.reshape(1, -1) * self.unit
                self._hide(tile, band, weight)
                # Finite, even if a query sees no key of the band: the difference then stays infinite.
                peaks.append(weight.amax(1, keepdim=True).clamp_(min=torch.finfo(weight.dtype).min))
                if not self.hard:
                    totals.append(weight.sub_(peaks[-1]).exp2_().sum(1, keepdim=True))
            peak = torch.cat(peaks, 1)
            top = peak.amax(1, keepdim=True)
            if self.hard:
                result = top + void
            else:
                factors = (peak - top).exp2_()
                total = (factors * torch.cat(totals, 1)).sum(1, keepdim=True) + void
                result = top + total.log2()
                factors /= total
            normalizer[tile.inner] += result.view_as(normalizer[tile.inner])
            for i, (band, weight) in enumerate(zip(tile.bands, weights, strict=True)):
                if self.hard:
                    weight.eq_(result)
                else:
                    weight.mul_(factors[:, i : i + 1])
                _, values, _ = band.of(self.levels[band.level])
                self._paste_(output[tile.wide], self._spread(band, weight), self._pixels(values))
        return self._restore(output) / self.divisor, self._restore(normalizer)[0]

    def backward(self, grad: Tensor, normalizer: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Return the gradients of the query, keys, scales and values."""
        grad = self._lay_out(grad / self.divisor)
        normalizer = self._lay_out(normalizer[None], math.inf)
        d_query = torch.zeros_like(self.query)
        d_levels = [level.zeros_like() for level in self.levels]
        memories = [self._memory() for _ in range(3)]
        for tile in self._tiles():
            query, slope_out = (self._pixels(x[tile.wide]) for x in (self.query, grad))
            log_sum = self._pixels(normalizer[tile.inner])
            mean = torch.zeros_like(log_sum)
            work = list(zip(tile.bands, *(self._matrices(memory, tile.bands) for memory in memories), strict=True))
            for band, sums, weight, slope in work:
                keys, values, scale = band.of(self.levels[band.level])
                _, d_values, _ = band.of(d_levels[band.level])
                self._sum_patches(band, query, keys, sums)
                torch.mul(sums, scale.reshape(1, -1) * self.unit, out=weight)
                self._hide(tile, band, weight)
                if self.hard:
                    weight.eq_(log_sum)
                else:
                    weight.sub_(log_sum).exp2_()
                    self._sum_patches(band, slope_out, values, slope)
                    mean += slope.mul_(weight).sum(1, keepdim=True)
                self._paste_(d_values, self._spread(band, weight).t(), slope_out)
            if self.hard:
                continue
            for band, sums, weight, slope in work:
                keys, _, scale = band.of(self.levels[band.level])
                d_keys, _, d_scale = band.of(d_levels[band.level])
                # Through the softmax: weight * (slope - mean), with the mean over all keys.
                slope.addcmul_(weight, mean, value=-1)
                d_scale += sums.mul_(slope).sum(0).view_as(d_scale)
                spread = self._spread(band, slope.mul_(scale.reshape(1, -1)))
                self._paste_(d_query[tile.wide], spread, self._pixels(keys))
                self._paste_(d_keys, spread.t(), query)
        d_keys, d_scales, d_values = zip(*(level.restore() for level in d_levels), strict=True)
        return self._restore(d_query), list(d_keys), list(d_scales), list(d_values)

    def _sum_patches(self, band: _Band, pixels: Tensor, others: Tensor, out: Tensor) -> None:
        """Write the scalar products of the patches of a tile and a band."""
        diagonals = self._diagonals(band)
        torch.mm(pixels, self._pixels(others).t(), out=diagonals.products)
        diagonals.sum(out)

    def _spread(self, band: _Band, weights: Tensor) -> Tensor:
        """Return the weight of every pixel of a band for every pixel of a tile, both with margins."""
        diagonals = self._diagonals(band)
        diagonals.spread(weights)
        return diagonals.products

    def _diagonals(self, band: _Band) -> _Diagonals:
        shape = band.height, band.stride
        if shape not in self.diagonals:
            self.diagonals[shape] = _Diagonals(self.tile, *shape, self.radius, self.scratch)
        return self.diagonals[shape]

    def _hide(self, tile: _Tile, band: _Band, weights: Tensor) -> None:
        """Set scores to minus infinity for keys in a band's margin, or that a query of a tile does not see."""
        scores = weights.view(*self.tile, band.height, band.stride)
        end = band.stride - self.radius
        scores[..., : self.radius] = scores[..., end:] = -math.inf
        if tile.hidden:
            rows, columns = tile.hidden[band.level]
            scores.masked_fill_(rows[:, None, band.rows, None], -math.inf)
            scores[..., self.radius : end].masked_fill_(columns[None, :, None, band.columns], -math.inf)

    def _paste_(self, target: Tensor, weights: Tensor, pixels: Tensor) -> None:
        target += (weights @ pixels).view_as(target)

    def _choose(self, area: int) -> None:
        """Choose the size of the tiles, and find the rows and columns of every level that they see."""
        self.tile = _tile_size(self.height, self.width, area)
        axes: list[Sequence[tuple[Tensor, Tensor] | None]]
        axes = [(None, None)] * len(self.levels) if self.visible is None else list(self.visible)
        self.spans = [
            [
                _spans(edges, side, length, step)
                for edges, side, length, step in zip(
                    of_level, (level.height, level.width), (self.height, self.width), self.tile, strict=True
                )
            ]
            for of_level, level in zip(axes, self.levels, strict=True)
        ]
        longest = [[max(stop - first for first, stop in spans) for spans in of_level] for of_level in self.spans]
        #: Maximum height and stride of the keys of every level that a tile sees.
        self.largest = [(tall, wide + 2 * self.radius) for tall, wide in longest]
        self.most_scores = math.prod(self.tile) * sum(tall * wide for tall, wide in self.largest)

    def _memory(self) -> Tensor:
        """Allocate memory for the scores of any tile."""
        return self.query.new_empty(self.most_scores)

    def _matrices(self, memory: Tensor, bands: Sequence[_Band]) -> list[Tensor]:
        """Lay out a matrix of scores for every band."""
        area = math.prod(self.tile)
        columns = [band.height * band.stride for band in bands]
        parts = memory[: area * sum(columns)].split([area * count for count in columns])
        return [part.view(area, count) for part, count in zip(parts, columns, strict=True)]

    def _tiles(self) -> Iterator[_Tile]:
        """Yield every tile with the keys that it sees."""
        height, width = self.tile
        for i, y in enumerate(range(0, self.height, height)):
            for j, x in enumerate(range(0, self.width, width)):
                wide, inner = (
                    (
                        slice(y + start, y + start + height + 2 * margin),
                        slice(x + start, x + start + width + 2 * margin),
                    )
                    for start, margin in ((0, self.radius), (self.radius, 0))
                )
                bands = [
                    band
                    for index, (rows, columns) in enumerate(self.spans)
                    for band in self._cut(index, rows[i], columns[j])
                ]
                yield _Tile(wide, inner, bands, self._hidden(y, x))

    def _cut(self, level: int, rows: tuple[int, int], columns: tuple[int, int]) -> list[_Band]:
        """Divide a rectangle of a level into bands of about equal height."""
        (top, bottom), wide = rows, slice(*columns)
        count = math.ceil((bottom - top) * (wide.stop - wide.start + 2 * self.radius) / self.band_size)
        step = math.ceil((bottom - top) / count)
        return [_Band(level, slice(y, min(y + step, bottom)), wide, self.radius) for y in range(top, bottom, step)]

    def _hidden(self, y: int, x: int) -> list[tuple[Tensor, Tensor]]:
        """Return masks of the rows and columns of every level that the tile at a pixel does not see."""
        # Queries beyond the image see the same as at its edge.
        rows, columns = (
            torch.arange(start, start + step, device=self.query.device).clamp(max=length - 1)
            for start, step, length in zip((y, x), self.tile, (self.height, self.width), strict=True)
        )
        masks = [
            seen_along(seen.at(rows, columns), (level.height, level.width))
            for seen, level in zip(self.visible_there or (), self.levels, strict=False)
        ]
        return [(~tall, ~wide) for tall, wide in masks]

    def _lay_out(self, image: Tensor, fill: float = 0.0) -> Tensor:
        """Convert ``(C, H, W)`` to ``(height, width, C)``, padded to whole tiles with a margin."""
        r = self.radius
        height, width = self.tile
        right, below = -self.width % width + r, -self.height % height + r
        return F.pad(image, (r, right, r, below), value=fill).permute(1, 2, 0).contiguous()

    def _restore(self, image: Tensor) -> Tensor:
        """Undo :meth:`_lay_out`."""
        r = self.radius
        return image[r : r + self.height, r : r + self.width].permute(2, 0, 1)

    def _zeros(self, channels: int) -> Tensor:
        return self.query.new_zeros(*self.query.shape[:2], channels)

    @staticmethod
    def _pixels(image: Tensor) -> Tensor:
        return image.reshape(-1, image.shape[-1])


def _spans(edges: tuple[Tensor, Tensor] | None, side: int, length: int, step: int) -> list[tuple[int, int]]:
    """Return the range of keys, first and end, that each tile along an axis sees.

    Args:
        edges: The same for every query, see :class:`~panet_plugin.ops.window.Visible`; None without a window.
        side: Keys along the axis.
        length: Queries along the axis.
        step: Queries in a tile.
    """
    starts = range(0, length, step)
    if edges is None:
        return [(0, side)] * len(starts)
    first, stop = (edge.tolist() for edge in edges)
    return [(first[start], stop[min(start + step, length) - 1]) for start in starts]


def _tile_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Return the size of equal tiles that cover the image, as square as it allows, of at most ``area`` pixels."""
    side = math.isqrt(area)
    tall = min(height, max(side, area // width))
    wide = min(width, area // min(height, side))
    return math.ceil(height / math.ceil(height / tall)), math.ceil(width / math.ceil(width / wide))
