"""Pyramid attention in blocks of queries and keys: linear memory, plain PyTorch, any device.

A score is a sum over patch offsets of products of pixels in which query and key shift together: a sum along
diagonals, like that of pasted weights. So no patch is ever unfolded: pixels are multiplied once and the products
added up (:class:`_Diagonals`). A block is a tile of queries against every key, done one band of keys at a time so
that what a band needs stays in cache. docs/attention.md has the formulas.
"""

import copy
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.pyramid import overlap_divisor
from panet_plugin.ops.window import Visible, seen_keys

#: Pixels of a tile of queries and of a band of keys. Larger ones spend less on their margins, smaller ones stay in
#: a CPU's cache; other devices want fewer and larger operations.
CPU_BLOCK = 256, 2048
OTHER_BLOCK = 1024, 2**14
#: Most scores of a tile, that is with all keys: tiles get smaller as the image gets very large.
MAX_SCORES = 2**25


def forward(
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    ksize: int,
    hard: bool,
    visible: Sequence[Visible] | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute pyramid attention and what its backward pass needs.

    Args:
        query: ``(N, C, H, W)`` float32 or float64, as all of the following.
        keys: ``(N, C, h, w)`` per level.
        scales: ``(N, 1, h, w)`` per level, from :func:`~panet_plugin.ops.pyramid.key_scale`.
        values: ``(N, D, h, w)`` per level.
        ksize: Side of a patch in pixels.
        hard: Paste only the best matches.
        visible: What each query sees of every level; None for all keys.

    Returns:
        The output ``(N, D, H, W)``, and the log-sum-exp (the maximum if ``hard``) of every query's scores
        ``(N, H, W)``.
    """
    results = [
        _Sample(q, k, s, v, ksize, hard, visible).forward()
        for q, k, s, v in zip(
            query, zip(*keys, strict=True), zip(*scales, strict=True), zip(*values, strict=True), strict=True
        )
    ]
    output, normaliser = (_stack(result) for result in zip(*results, strict=True))
    return output, normaliser


def backward(
    grad: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    normaliser: Tensor,
    ksize: int,
    hard: bool,
    visible: Sequence[Visible] | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Return the gradients of ``query``, ``keys``, ``scales`` and ``values``, computing the scores again.

    Args:
        grad: Gradient of the output, ``(N, D, H, W)``.
        query: As given to :func:`forward`.
        keys: As given to :func:`forward`.
        scales: As given to :func:`forward`.
        values: As given to :func:`forward`.
        normaliser: Second result of :func:`forward`.
        ksize: As given to :func:`forward`.
        hard: As given to :func:`forward`; the gradients of all but ``values`` are zero then.
        visible: As given to :func:`forward`.
    """
    results = [
        _Sample(q, k, s, v, ksize, hard, visible).backward(g, n)
        for g, q, k, s, v, n in zip(
            grad,
            query,
            zip(*keys, strict=True),
            zip(*scales, strict=True),
            zip(*values, strict=True),
            normaliser,
            strict=True,
        )
    ]
    d_keys, d_scales, d_values = (
        [_stack(level) for level in zip(*each, strict=True)]
        for each in zip(*(levels for _, *levels in results), strict=True)
    )
    return _stack([d_query for d_query, *_ in results]), d_keys, d_scales, d_values


def _stack(images: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    # torch.stack alone keeps the order of dimensions in memory if it can: ours is none of the caller's business.
    return torch.stack(images).contiguous()


class _Level:
    """One level of the pyramid as lists of pixels, or its gradients.

    ``radius`` zeros follow every image row, so that what a patch finds beyond either side is zero; keys and values
    have ``radius`` rows of zeros above and below.
    """

    def __init__(self, key: Tensor, scale: Tensor, value: Tensor, radius: int) -> None:
        self.height, self.width = key.shape[-2:]
        self.radius = radius
        self.stride = self.width + radius
        self.keys, self.values = (
            F.pad(x, (0, radius, radius, radius)).flatten(1).t().contiguous() for x in (key, value)
        )
        self.scale = F.pad(scale, (0, radius)).flatten(1)
        #: Minus infinity where there is no key.
        self.bias = F.pad(torch.zeros_like(scale), (0, radius), value=-math.inf).flatten(1)

    def zeros_like(self) -> "_Level":
        """Return a level of zeros of the same layout."""
        level = copy.copy(self)
        level.keys, level.scale, level.values = (torch.zeros_like(x) for x in (self.keys, self.scale, self.values))
        return level

    def restore(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return keys, scale and values as images."""
        inner = slice(self.radius, self.radius + self.height)
        keys, values = (x.t().unflatten(1, (-1, self.stride))[:, inner, : self.width] for x in (self.keys, self.values))
        return keys, self.scale.unflatten(1, (-1, self.stride))[..., : self.width], values


class _Band:
    """Some image rows of one level: views of its pixels.

    ``keys`` and ``values`` include ``radius`` rows around them.
    """

    def __init__(self, level: _Level, index: int, start: int, stop: int) -> None:
        self.level, self.start = index, start
        wide = slice(start * level.stride, (stop + 2 * level.radius) * level.stride)
        self.keys, self.values = level.keys[wide], level.values[wide]
        self.rows, self.stride = stop - start, level.stride
        inner = slice(start * level.stride, stop * level.stride)
        self.scale, self.bias = level.scale[:, inner], level.bias[:, inner]


class _Diagonals:
    """Sums along the diagonals of the products of a tile and a band, and their adjoint.

    ``products`` is the matrix of all pixels of both with their margins. One step along the horizontal diagonal,
    to the next query and the next key, is a step of one row and one column in that matrix. Where it runs beyond the
    first or last column it meets the zeros that end an image row.

    Args:
        tile: Height and width without margin.
        rows: Image rows of the band without margin.
        stride: From one image row of the band to the next.
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
        # What the middle one of `vertical` or `horizontal` leaves out.
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

    Tiles are all of one size; those that reach beyond the image find zeros there.
    """

    def __init__(
        self,
        query: Tensor,
        keys: Sequence[Tensor],
        scales: Sequence[Tensor],
        values: Sequence[Tensor],
        ksize: int,
        hard: bool,
        visible: Sequence[Visible] | None = None,
    ) -> None:
        self.visible = visible
        self.divisor, self.hard, self.radius = overlap_divisor(ksize), hard, ksize // 2
        self.levels = [_Level(*level, self.radius) for level in zip(keys, scales, values, strict=True)]
        area, self.band_size = CPU_BLOCK if query.is_cpu else OTHER_BLOCK
        area = max(1, min(area, MAX_SCORES // sum(level.scale.numel() for level in self.levels)))
        self.height, self.width = query.shape[-2:]
        tile = self.tile_height, self.tile_width = _tile_size(self.height, self.width, area)
        self.query = self._lay_out(query)
        #: Infinite where there is no query: added to a normaliser, it makes all weights zero.
        self.void = self._lay_out(torch.zeros_like(query[:1]), math.inf)
        self.bands = self._cut(self.levels)
        columns = max(len(band.keys) for band in self.bands)
        tall, wide = tile[0] + 2 * self.radius, tile[1] + 2 * self.radius
        # One scratch memory for all bands, which therefore stays in cache.
        scratch = query.new_empty(tall * wide * columns + 2 * self.radius), query.new_empty(tall * tile[1] * columns)
        shapes = {(band.rows, band.stride) for band in self.bands}
        self.diagonals = {shape: _Diagonals(tile, *shape, self.radius, scratch) for shape in shapes}

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the output ``(D, H, W)`` and the normaliser ``(H, W)``."""
        output = self._zeros(self.levels[0].values.shape[1])
        normaliser = torch.zeros_like(self.void)
        weights = self._matrices()
        for tile, inner in self._tiles():
            query, void = self._pixels(self.query[tile]), self._pixels(self.void[inner])
            peaks, totals = [], []
            near = [(band, weight) for band, weight in zip(self.bands, weights, strict=True) if self._sees(inner, band)]
            for band, weight in near:
                self._sum_patches(band, query, band.keys, weight)
                torch.addcmul(band.bias, weight, band.scale, out=weight)
                self._hide(band, inner, weight)
                # Finite, even where a query sees no key of the band: then the difference stays infinite.
                peaks.append(weight.amax(1, keepdim=True).clamp_(min=torch.finfo(weight.dtype).min))
                if not self.hard:
                    totals.append(weight.sub_(peaks[-1]).exp_().sum(1, keepdim=True))
            peak = torch.cat(peaks, 1)
            top = peak.amax(1, keepdim=True)
            if self.hard:
                result = top + void
            else:
                factors = (peak - top).exp_()
                total = (factors * torch.cat(totals, 1)).sum(1, keepdim=True) + void
                result = top + total.log()
                factors /= total
            normaliser[inner] += result.view_as(normaliser[inner])
            for i, (band, weight) in enumerate(near):
                if self.hard:
                    weight.eq_(result)
                else:
                    weight.mul_(factors[:, i : i + 1])
                self._paste_(output[tile], self._spread(band, weight), band.values)
        return self._restore(output) / self.divisor, self._restore(normaliser)[0]

    def backward(self, grad: Tensor, normaliser: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """Return the gradients of the query, keys, scales and values."""
        grad = self._lay_out(grad / self.divisor)
        normaliser = self._lay_out(normaliser[None], math.inf)
        d_query = torch.zeros_like(self.query)
        d_levels = [level.zeros_like() for level in self.levels]
        work = list(zip(self.bands, self._cut(d_levels), *(self._matrices() for _ in range(3)), strict=True))
        for tile, inner in self._tiles():
            query, slope_out, log_sum = (self._pixels(x) for x in (self.query[tile], grad[tile], normaliser[inner]))
            mean = torch.zeros_like(log_sum)
            near = [part for part in work if self._sees(inner, part[0])]
            for band, d_band, sums, weight, slope in near:
                self._sum_patches(band, query, band.keys, sums)
                torch.addcmul(band.bias, sums, band.scale, out=weight)
                self._hide(band, inner, weight)
                if self.hard:
                    weight.eq_(log_sum)
                else:
                    weight.sub_(log_sum).exp_()
                    self._sum_patches(band, slope_out, band.values, slope)
                    mean += slope.mul_(weight).sum(1, keepdim=True)
                d_band.values.addmm_(self._spread(band, weight).t(), slope_out)
            if self.hard:
                continue
            for band, d_band, sums, weight, slope in near:
                # Through the softmax: weight * (slope - mean), with the mean over all keys.
                slope.addcmul_(weight, mean, value=-1)
                d_band.scale.add_(sums.mul_(slope).sum(0))
                spread = self._spread(band, slope.mul_(band.scale))
                self._paste_(d_query[tile], spread, band.keys)
                d_band.keys.addmm_(spread.t(), query)
        d_keys, d_scales, d_values = zip(*(level.restore() for level in d_levels), strict=True)
        return self._restore(d_query), list(d_keys), list(d_scales), list(d_values)

    def _sum_patches(self, band: _Band, pixels: Tensor, others: Tensor, out: Tensor) -> None:
        """Write the scalar products of the patches of a tile and a band."""
        diagonals = self.diagonals[band.rows, band.stride]
        torch.mm(pixels, others.t(), out=diagonals.products)
        diagonals.sum(out)

    def _sees(self, tile: tuple[slice, slice], band: _Band) -> bool:
        """Return whether a query of a tile may see a key of a band."""
        if self.visible is None:
            return True
        first, stop = self.visible[band.level].rows
        y, last = (min(row - self.radius, self.height - 1) for row in (tile[0].start, tile[0].stop - 1))
        return bool(first[y] < band.start + band.rows and stop[last] > band.start)

    def _hide(self, band: _Band, tile: tuple[slice, slice], weights: Tensor) -> None:
        """Set the scores of keys to minus infinity that a query of a tile does not see."""
        if self.visible is None:
            return
        # What reaches beyond the image looks like its edge.
        rows, columns = (
            torch.arange(side.start, side.stop).sub(self.radius).clamp(max=length - 1)
            for side, length in zip(tile, (self.height, self.width), strict=True)
        )
        (first, stop), columns_seen = self.visible[band.level].at(rows, columns)
        seen = seen_keys(Visible((first - band.start, stop - band.start), columns_seen), (band.rows, band.stride))
        weights.masked_fill_(~seen.to(weights.device), -math.inf)

    def _spread(self, band: _Band, weights: Tensor) -> Tensor:
        """Return the weight of every pixel of a band for every pixel of a tile, both with margins."""
        diagonals = self.diagonals[band.rows, band.stride]
        diagonals.spread(weights)
        return diagonals.products

    def _paste_(self, target: Tensor, weights: Tensor, pixels: Tensor) -> None:
        target += (weights @ pixels).view_as(target)

    def _cut(self, levels: Sequence[_Level]) -> list[_Band]:
        """Cut levels into bands of about equal heights."""
        bands = []
        for index, level in enumerate(levels):
            count = math.ceil(level.scale.numel() / self.band_size)
            rows = math.ceil(level.height / count)
            bands += [_Band(level, index, y, min(y + rows, level.height)) for y in range(0, level.height, rows)]
        return bands

    def _matrices(self) -> list[Tensor]:
        """Allocate a matrix of scores for every band."""
        area = self.tile_height * self.tile_width
        return [self.query.new_empty(area, band.rows * band.stride) for band in self.bands]

    def _tiles(self) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
        """Yield every tile's place in a laid-out image, with its margin and without."""
        height, width, r = self.tile_height, self.tile_width, self.radius
        for y in range(0, self.height, height):
            for x in range(0, self.width, width):
                yield (
                    (slice(y, y + height + 2 * r), slice(x, x + width + 2 * r)),
                    (slice(y + r, y + r + height), slice(x + r, x + r + width)),
                )

    def _lay_out(self, image: Tensor, fill: float = 0.0) -> Tensor:
        """Turn ``(C, H, W)`` into ``(height, width, C)``, filled up to whole tiles with a margin."""
        r = self.radius
        right, below = -self.width % self.tile_width + r, -self.height % self.tile_height + r
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


def _tile_size(height: int, width: int, area: int) -> tuple[int, int]:
    """Return the size of equal tiles that cover the image, as square as it allows, of at most ``area`` pixels."""
    side = math.isqrt(area)
    tall = min(height, max(side, area // width))
    wide = min(width, area // min(height, side))
    return math.ceil(height / math.ceil(height / tall)), math.ceil(width / math.ceil(width / wide))
