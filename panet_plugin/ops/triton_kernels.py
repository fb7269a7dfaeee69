"""Pyramid attention by Triton kernels for CUDA: 3x3 patches, soft matching, float32; no autograd inside.

The kernels follow FlashAttention: scores of a block of queries and a block of keys live in registers only, and what
is summed over them goes to memory once. A patch is nine loads from the list of pixels, never an unfolded copy. Of every
level a block of queries goes through the rectangle of keys that some of them see, and a block of keys through the
queries that see some of them: all, if there is no window.
Results are patches too, added up by ``F.fold``, so that nothing depends on the order in which blocks finish.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from panet_plugin.ops.pyramid import overlap_divisor
from panet_plugin.ops.window import Visible, seen_by, visible_keys

#: Rows and columns of a block of queries and of keys.
QUERY_ROWS, QUERY_COLUMNS, KEY_ROWS, KEY_COLUMNS = map(tl.constexpr, (4, 4, 4, 8))
QUERIES, KEYS = map(tl.constexpr, (16, 32))

#: Numbers of which no kernel is compiled again for another value.
SIZES = ["height", "width", "level_height", "level", "query_pixels", "key_pixels", "num_levels", "num_keys"]


@triton.jit
def _block(number, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return rows and columns of the pixels of a block of an image, and whether they are in it.

    For those beyond its edges it is the row or column of the edge.
    """
    across = (width + COLUMNS - 1) // COLUMNS
    i = tl.arange(0, ROWS * COLUMNS)
    rows, columns = number // across * ROWS + i // COLUMNS, number % across * COLUMNS + i % COLUMNS
    there = (rows < height) & (columns < width)
    return tl.minimum(rows, height - 1), tl.minimum(columns, width - 1), there


@triton.jit
def _next(start, count, top, left, wide, BLOCK: tl.constexpr):
    """Return rows and columns of the next pixels of a rectangle of ``count``, and whether they are in it."""
    i = start + tl.arange(0, BLOCK)
    there = i < count
    i = tl.minimum(i, count - 1)
    return top + i // wide, left + i % wide, there


@triton.jit
def _place(first, rows, columns, step):
    """Return the places of some pixels in a list in which an image with a border of zeros begins at ``first``."""
    return (first + (rows + 1) * step + columns + 1).to(tl.int64)


@triton.jit
def _rectangle(row_first, row_stop, column_first, column_stop, rows, columns):
    """Return the rectangle that holds what some pixels see: its top, left, width and number of pixels."""
    top, left = tl.min(tl.load(row_first + rows), 0), tl.min(tl.load(column_first + columns), 0)
    tall, wide = tl.max(tl.load(row_stop + rows), 0) - top, tl.max(tl.load(column_stop + columns), 0) - left
    return top, left, wide, tl.maximum(tall, 0) * tl.maximum(wide, 0)


@triton.jit
def _level(levels, level):
    """Return where a level begins in the lists of pixels and of keys, and its width."""
    return tl.load(levels + 3 * level), tl.load(levels + 3 * level + 1), tl.load(levels + 3 * level + 2)


@triton.jit
def _sees(row_first, row_stop, column_first, column_stop, y, x, rows, columns):
    """Return whether queries at y and x see keys at some rows and columns; all are to be of shapes for each other."""
    in_rows = (tl.load(row_first + y) <= rows) & (rows < tl.load(row_stop + y))
    return in_rows & (tl.load(column_first + x) <= columns) & (columns < tl.load(column_stop + x))


@triton.jit
def _pixels(image, at, step, dy, dx, first, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Load some channels of the pixel at an offset from every position."""
    return tl.load(image + (at + dy * step + dx)[:, None] * CHANNELS + (first + tl.arange(0, BLOCK))[None, :])


@triton.jit
def _products(left, left_at, left_step, right, right_at, right_step, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Multiply the patches around all positions of two images."""
    total = tl.zeros([left_at.shape[0], right_at.shape[0]], tl.float32)
    # One loop and not unrolled: operands of all offsets at once would not fit into shared memory.
    for i in range(0, 9 * (CHANNELS // BLOCK)):
        dy, dx, first = i // 3 % 3 - 1, i % 3 - 1, i // 9 * BLOCK
        a = _pixels(left, left_at, left_step, dy, dx, first, CHANNELS, BLOCK)
        b = _pixels(right, right_at, right_step, dy, dx, first, CHANNELS, BLOCK)
        total = tl.dot(a, tl.trans(b), total, input_precision="ieee")
    return total


@triton.jit
def _add(total, weights, image, at, step, dy, dx, first, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Add weighted pixels at an offset from every position."""
    pixels = _pixels(image, at, step, dy, dx, first, CHANNELS, BLOCK)
    return tl.dot(weights, pixels, total, input_precision="ieee")


@triton.jit
def _store(patches, at, there, left, middle, right, dy, first, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Store one image row of patches, ``(pixels, 9, CHANNELS)``."""
    to = patches + (at.to(tl.int64) * 9 + (dy + 1) * 3)[:, None] * CHANNELS + (first + tl.arange(0, BLOCK))[None, :]
    tl.store(to, left, there[:, None])
    tl.store(to + CHANNELS, middle, there[:, None])
    tl.store(to + 2 * CHANNELS, right, there[:, None])


@triton.jit(do_not_specialize=SIZES)
def _forward_kernel(
    query, keys, scale, levels, row_first, row_stop, column_first, column_stop, values,
    patches, log_sums,
    height, width, query_pixels, key_pixels, num_levels, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every output patch, and the log-sum-exp."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * D_BLOCK
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    y, x, there = _block(tl.program_id(0), height, width, QUERY_ROWS, QUERY_COLUMNS)
    at, step = _place(0, y, x, width + 2), tl.full([QUERIES], 0, tl.int32) + width + 2
    index = sample * height * width + y * width + x
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    west = tl.zeros([QUERIES, D_BLOCK], tl.float32)
    middle = tl.zeros([QUERIES, D_BLOCK], tl.float32)
    east = tl.zeros([QUERIES, D_BLOCK], tl.float32)
    for level in range(0, num_levels):
        row_first_, row_stop_ = row_first + level * height, row_stop + level * height
        column_first_, column_stop_ = column_first + level * width, column_stop + level * width
        top, left, wide, count = _rectangle(row_first_, row_stop_, column_first_, column_stop_, y, x)
        pixels, before, level_width = _level(levels, level)
        k_step = tl.full([KEYS], 0, tl.int32) + level_width + 2
        for start in range(0, count, KEYS):
            rows, columns, inside = _next(start, count, top, left, wide, KEYS)
            k_at = _place(pixels, rows, columns, level_width + 2)
            seen = (
                _sees(
                    row_first_,
                    row_stop_,
                    column_first_,
                    column_stop_,
                    y[:, None],
                    x[:, None],
                    rows[None, :],
                    columns[None, :],
                )
                & inside[None, :]
            )
            factor = tl.load(scale + sample * num_keys + before + rows * level_width + columns)[None, :]
            scores = _products(query, at, step, keys, k_at, k_step, C, C_BLOCK) * factor
            scores = tl.where(seen, scores, float("-inf"))
            top_score = tl.maximum(peak, tl.max(scores, 1))
            # As long as a query has seen no key there is nothing to shrink, and infinity less itself is no number.
            base = tl.where(top_score == float("-inf"), 0.0, top_score)
            shrink = tl.exp(peak - base)
            weights = tl.exp(scores - base[:, None])
            total = total * shrink + tl.sum(weights, 1)
            west = _add(west * shrink[:, None], weights, values, k_at, k_step, dy, -1, first, D, D_BLOCK)
            middle = _add(middle * shrink[:, None], weights, values, k_at, k_step, dy, 0, first, D, D_BLOCK)
            east = _add(east * shrink[:, None], weights, values, k_at, k_step, dy, 1, first, D, D_BLOCK)
            peak = top_score
    share = 1 / total[:, None]
    _store(patches, index, there, west * share, middle * share, east * share, dy, first, D, D_BLOCK)
    # Every program of the block has it: all write the same.
    tl.store(log_sums + index, peak + tl.log(total), there)


@triton.jit(do_not_specialize=SIZES)
def _mean_kernel(
    query, keys, scale, levels, row_first, row_stop, column_first, column_stop, values,
    grad, log_sums, means,
    height, width, query_pixels, key_pixels, num_levels, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write every query's mean over keys of weight times slope."""
    sample = tl.program_id(2).to(tl.int64)
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    grad += sample * query_pixels * D
    y, x, there = _block(tl.program_id(0), height, width, QUERY_ROWS, QUERY_COLUMNS)
    at, step = _place(0, y, x, width + 2), tl.full([QUERIES], 0, tl.int32) + width + 2
    index = sample * height * width + y * width + x
    log_sum = tl.load(log_sums + index)
    mean = tl.zeros([QUERIES], tl.float32)
    for level in range(0, num_levels):
        row_first_, row_stop_ = row_first + level * height, row_stop + level * height
        column_first_, column_stop_ = column_first + level * width, column_stop + level * width
        top, left, wide, count = _rectangle(row_first_, row_stop_, column_first_, column_stop_, y, x)
        pixels, before, level_width = _level(levels, level)
        k_step = tl.full([KEYS], 0, tl.int32) + level_width + 2
        for start in range(0, count, KEYS):
            rows, columns, inside = _next(start, count, top, left, wide, KEYS)
            k_at = _place(pixels, rows, columns, level_width + 2)
            seen = (
                _sees(
                    row_first_,
                    row_stop_,
                    column_first_,
                    column_stop_,
                    y[:, None],
                    x[:, None],
                    rows[None, :],
                    columns[None, :],
                )
                & inside[None, :]
            )
            factor = tl.load(scale + sample * num_keys + before + rows * level_width + columns)[None, :]
            scores = _products(query, at, step, keys, k_at, k_step, C, C_BLOCK) * factor
            weights = tl.where(seen, tl.exp(scores - log_sum[:, None]), 0.0)
            mean += tl.sum(weights * _products(grad, at, step, values, k_at, k_step, D, D_BLOCK), 1)
    tl.store(means + index, mean, there)


@triton.jit(do_not_specialize=SIZES)
def _query_kernel(
    query, keys, scale, levels, row_first, row_stop, column_first, column_stop, values,
    grad, log_sums, means, d_query,
    height, width, query_pixels, key_pixels, num_levels, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every query patch's gradient."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * C_BLOCK
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    grad += sample * query_pixels * D
    y, x, there = _block(tl.program_id(0), height, width, QUERY_ROWS, QUERY_COLUMNS)
    at, step = _place(0, y, x, width + 2), tl.full([QUERIES], 0, tl.int32) + width + 2
    index = sample * height * width + y * width + x
    log_sum, mean = tl.load(log_sums + index), tl.load(means + index)
    west = tl.zeros([QUERIES, C_BLOCK], tl.float32)
    middle = tl.zeros([QUERIES, C_BLOCK], tl.float32)
    east = tl.zeros([QUERIES, C_BLOCK], tl.float32)
    for level in range(0, num_levels):
        row_first_, row_stop_ = row_first + level * height, row_stop + level * height
        column_first_, column_stop_ = column_first + level * width, column_stop + level * width
        top, left, wide, count = _rectangle(row_first_, row_stop_, column_first_, column_stop_, y, x)
        pixels, before, level_width = _level(levels, level)
        k_step = tl.full([KEYS], 0, tl.int32) + level_width + 2
        for start in range(0, count, KEYS):
            rows, columns, inside = _next(start, count, top, left, wide, KEYS)
            k_at = _place(pixels, rows, columns, level_width + 2)
            seen = (
                _sees(
                    row_first_,
                    row_stop_,
                    column_first_,
                    column_stop_,
                    y[:, None],
                    x[:, None],
                    rows[None, :],
                    columns[None, :],
                )
                & inside[None, :]
            )
            factor = tl.load(scale + sample * num_keys + before + rows * level_width + columns)[None, :]
            scores = _products(query, at, step, keys, k_at, k_step, C, C_BLOCK) * factor
            weights = tl.where(seen, tl.exp(scores - log_sum[:, None]), 0.0)
            slopes = _products(grad, at, step, values, k_at, k_step, D, D_BLOCK)
            slopes = weights * (slopes - mean[:, None]) * factor
            west = _add(west, slopes, keys, k_at, k_step, dy, -1, first, C, C_BLOCK)
            middle = _add(middle, slopes, keys, k_at, k_step, dy, 0, first, C, C_BLOCK)
            east = _add(east, slopes, keys, k_at, k_step, dy, 1, first, C, C_BLOCK)
    _store(d_query, index, there, west, middle, east, dy, first, C, C_BLOCK)


@triton.jit(do_not_specialize=SIZES)
def _key_kernel(
    query, keys, scale, levels, row_first, row_stop, column_first, column_stop, values,
    grad, log_sums, means, d_keys, d_scale, row_from, row_to, column_from, column_to,
    height, width, level_height, level, query_pixels, key_pixels, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every key patch's gradient, and the gradient of its scale."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * C_BLOCK
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    grad += sample * query_pixels * D
    pixels, before, level_width = _level(levels, level)
    y, x, there = _block(tl.program_id(0), level_height, level_width, KEY_ROWS, KEY_COLUMNS)
    at = _place(pixels, y, x, level_width + 2)
    step = tl.full([KEYS], 0, tl.int32) + level_width + 2
    index = sample * num_keys + before + y * level_width + x
    factor = tl.load(scale + index)[:, None]
    row_first += level * height
    row_stop += level * height
    column_first += level * width
    column_stop += level * width
    q_step = tl.full([QUERIES], 0, tl.int32) + width + 2
    top, left, wide, count = _rectangle(row_from, row_to, column_from, column_to, y, x)
    west = tl.zeros([KEYS, C_BLOCK], tl.float32)
    middle = tl.zeros([KEYS, C_BLOCK], tl.float32)
    east = tl.zeros([KEYS, C_BLOCK], tl.float32)
    slope_of_scale = tl.zeros([KEYS], tl.float32)
    for start in range(0, count, QUERIES):
        rows, columns, inside = _next(start, count, top, left, wide, QUERIES)
        q_at = _place(0, rows, columns, width + 2)
        seen = (
            _sees(
                row_first, row_stop, column_first, column_stop, rows[None, :], columns[None, :], y[:, None], x[:, None]
            )
            & inside[None, :]
        )
        q_index = sample * height * width + rows * width + columns
        sums = _products(keys, at, step, query, q_at, q_step, C, C_BLOCK)
        weights = tl.where(seen, tl.exp(sums * factor - tl.load(log_sums + q_index)[None, :]), 0.0)
        mean = tl.load(means + q_index)[None, :]
        slopes = weights * (_products(values, at, step, grad, q_at, q_step, D, D_BLOCK) - mean)
        slope_of_scale += tl.sum(slopes * sums, 1)
        slopes *= factor
        west = _add(west, slopes, query, q_at, q_step, dy, -1, first, C, C_BLOCK)
        middle = _add(middle, slopes, query, q_at, q_step, dy, 0, first, C, C_BLOCK)
        east = _add(east, slopes, query, q_at, q_step, dy, 1, first, C, C_BLOCK)
    _store(d_keys, index, there, west, middle, east, dy, first, C, C_BLOCK)
    tl.store(d_scale + index, slope_of_scale, there)


@triton.jit(do_not_specialize=SIZES)
def _value_kernel(
    query, keys, scale, levels, row_first, row_stop, column_first, column_stop,
    grad, log_sums, d_values, row_from, row_to, column_from, column_to,
    height, width, level_height, level, query_pixels, key_pixels, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every value patch's gradient."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * D_BLOCK
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    grad += sample * query_pixels * D
    pixels, before, level_width = _level(levels, level)
    y, x, there = _block(tl.program_id(0), level_height, level_width, KEY_ROWS, KEY_COLUMNS)
    at = _place(pixels, y, x, level_width + 2)
    step = tl.full([KEYS], 0, tl.int32) + level_width + 2
    index = sample * num_keys + before + y * level_width + x
    factor = tl.load(scale + index)[:, None]
    row_first += level * height
    row_stop += level * height
    column_first += level * width
    column_stop += level * width
    q_step = tl.full([QUERIES], 0, tl.int32) + width + 2
    top, left, wide, count = _rectangle(row_from, row_to, column_from, column_to, y, x)
    west = tl.zeros([KEYS, D_BLOCK], tl.float32)
    middle = tl.zeros([KEYS, D_BLOCK], tl.float32)
    east = tl.zeros([KEYS, D_BLOCK], tl.float32)
    for start in range(0, count, QUERIES):
        rows, columns, inside = _next(start, count, top, left, wide, QUERIES)
        q_at = _place(0, rows, columns, width + 2)
        seen = (
            _sees(
                row_first, row_stop, column_first, column_stop, rows[None, :], columns[None, :], y[:, None], x[:, None]
            )
            & inside[None, :]
        )
        q_index = sample * height * width + rows * width + columns
        sums = _products(keys, at, step, query, q_at, q_step, C, C_BLOCK)
        weights = tl.where(seen, tl.exp(sums * factor - tl.load(log_sums + q_index)[None, :]), 0.0)
        west = _add(west, weights, grad, q_at, q_step, dy, -1, first, D, D_BLOCK)
        middle = _add(middle, weights, grad, q_at, q_step, dy, 0, first, D, D_BLOCK)
        east = _add(east, weights, grad, q_at, q_step, dy, 1, first, D, D_BLOCK)
    _store(d_values, index, there, west, middle, east, dy, first, D, D_BLOCK)


def forward(
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    visible: Sequence[Visible] | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute pyramid attention in memory linear in the pixels.

    Args:
        query: ``(N, C, H, W)`` float32 on CUDA, as are all others.
        keys: ``(N, C, h, w)`` per level.
        scales: ``(N, 1, h, w)`` per level, from :func:`~panet_plugin.ops.pyramid.key_scale` with ``ksize=3``.
        values: ``(N, D, h, w)`` per level.
        visible: What each query sees of every level; None for all keys.

    Returns:
        The output ``(N, D, H, W)``, and the log-sum-exp of every query's scores ``(N, H, W)``.
    """
    call = _Call(query, keys, scales, values, visible)
    patches, log_sums = call.empty(call.queries, 9, call.depth), call.empty(call.queries)
    call.run(_forward_kernel, 3 * (call.depth // call.depth_block), call.values, patches, log_sums)
    (output,) = call.queries.fold(patches, values[0].shape[1])
    return output / overlap_divisor(3), log_sums.view(-1, *query.shape[2:])


def backward(
    grad: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    log_sums: Tensor,
    visible: Sequence[Visible] | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Return the gradients of ``query``, ``keys``, ``scales`` and ``values``, computing the scores again.

    Args:
        grad: Gradient of the output, ``(N, D, H, W)``.
        query: As given to :func:`forward`.
        keys: As given to :func:`forward`.
        scales: As given to :func:`forward`.
        values: As given to :func:`forward`.
        log_sums: Second result of :func:`forward`.
        visible: As given to :func:`forward`.
    """
    call = _Call(query, keys, scales, values, visible)
    cotangent = call.queries.pack([grad / overlap_divisor(3)], call.depth)
    means, d_scale = call.empty(call.queries), call.empty(call.keys)
    d_query, d_keys = call.empty(call.queries, 9, call.channels), call.empty(call.keys, 9, call.channels)
    d_values = call.empty(call.keys, 9, call.depth)
    log_sums = log_sums.contiguous()
    shared = call.values, cotangent, log_sums, means
    call.run(_mean_kernel, 1, *shared)
    call.run(_query_kernel, 3 * (call.channels // call.channel_block), *shared, d_query)
    call.run_levels(_key_kernel, 3 * (call.channels // call.channel_block), *shared, d_keys, d_scale)
    call.run_levels(_value_kernel, 3 * (call.depth // call.depth_block), cotangent, log_sums, d_values)
    (query_grad,) = call.queries.fold(d_query, query.shape[1])
    d_scales = d_scale.split(call.keys.lengths, 1)
    return (
        query_grad,
        call.keys.fold(d_keys, query.shape[1]),
        [d.clone().view(scale.shape) for d, scale in zip(d_scales, scales, strict=True)],
        call.keys.fold(d_values, values[0].shape[1]),
    )


class _Pixels:
    """The pixels of images in one list, with a border of zeros around every image.

    Args:
        sizes: Heights and widths of the images.
    """

    def __init__(self, sizes: Sequence[torch.Size]) -> None:
        self.sizes = sizes
        self.lengths = [height * width for height, width in sizes]
        self.count = sum(self.lengths)
        borders = [(height + 2) * (width + 2) for height, width in sizes]
        #: Where every image begins in the list, and how long that is.
        *self.starts, self.total = accumulate(borders, initial=0)

    def pack(self, images: Sequence[Tensor], channels: int) -> Tensor:
        """Lay images out as ``(N, pixels, channels)``, with zeros for channels that they lack."""
        padded = [F.pad(x, (1, 1, 1, 1, 0, channels - x.shape[1])).flatten(2) for x in images]
        return torch.cat(padded, 2).transpose(1, 2).contiguous()

    def fold(self, patches: Tensor, channels: int) -> list[Tensor]:
        """Add ``(N, pixels without borders, 9, channels)`` patches up to images."""
        columns = patches[..., :channels].permute(0, 3, 2, 1).flatten(1, 2)
        parts = columns.split(self.lengths, 2)
        return [F.fold(part, size, 3, padding=1) for part, size in zip(parts, self.sizes, strict=True)]


class _Call:
    """The arguments that all kernels share."""

    def __init__(
        self,
        query: Tensor,
        keys: Sequence[Tensor],
        scales: Sequence[Tensor],
        values: Sequence[Tensor],
        visible: Sequence[Visible] | None,
    ) -> None:
        if not query.is_cuda and not triton.knobs.runtime.interpret:
            raise ValueError(f"implementation 'triton' needs CUDA tensors, got {query.device}; use 'auto' or 'stream'")
        # Matrix products want multiples of 16.
        self.channels, self.depth = (math.ceil(x.shape[1] / 16) * 16 for x in (query, values[0]))
        self.channel_block, self.depth_block = (math.gcd(n, 64) for n in (self.channels, self.depth))
        self.batch, self.like, self.size = len(query), query, query.shape[2:]
        self.queries, self.keys = _Pixels([self.size]), _Pixels([key.shape[2:] for key in keys])
        # A window as large as the map holds all keys.
        self.visible = visible or visible_keys(max(self.size), self.size, self.keys.sizes)
        self.values = self.keys.pack(values, self.depth)
        before = accumulate(self.keys.lengths[:-1], initial=0)
        levels = zip(self.keys.starts, before, (width for _, width in self.keys.sizes), strict=True)
        edges = zip(*((*seen.rows, *seen.columns) for seen in self.visible), strict=True)
        self.inputs = (
            self.queries.pack([query], self.channels),
            self.keys.pack(keys, self.channels),
            torch.cat([scale.flatten(1) for scale in scales], 1),
            self._table(torch.tensor(list(levels))),
            *(self._table(torch.cat(edge)) for edge in edges),
        )

    def _table(self, numbers: Tensor) -> Tensor:
        return numbers.to(self.like.device, torch.int32)

    def empty(self, pixels: _Pixels, *shape: int) -> Tensor:
        """Allocate something for every pixel of every sample."""
        return self.like.new_empty(self.batch, pixels.count, *shape)

    def run(self, kernel: triton.JITFunction, parts: int, *arguments: Tensor) -> None:
        """Run a kernel for every block of queries, part of its work and sample."""
        blocks = _count_blocks(self.size, QUERY_ROWS.value, QUERY_COLUMNS.value)
        pixels = self.queries.total, self.keys.total
        self._launch(kernel, blocks, parts, *arguments, *self.size, *pixels, len(self.visible), self.keys.count)

    def run_levels(self, kernel: triton.JITFunction, parts: int, *arguments: Tensor) -> None:
        """Run a kernel for every block of keys of every level, part of its work and sample."""
        for level, (size, seen) in enumerate(zip(self.keys.sizes, self.visible, strict=True)):
            blocks = _count_blocks(size, KEY_ROWS.value, KEY_COLUMNS.value)
            seers = [self._table(edge) for axis, side in zip(seen, size, strict=True) for edge in seen_by(axis, side)]
            sizes = *self.size, size[0], level, self.queries.total, self.keys.total, self.keys.count
            self._launch(kernel, blocks, parts, *arguments, *seers, *sizes)

    def _launch(self, kernel: triton.JITFunction, blocks: int, parts: int, *arguments: Tensor | int) -> None:
        channels = self.channels, self.channel_block, self.depth, self.depth_block
        with torch.cuda.device_of(self.like):
            kernel[blocks, parts, self.batch](*self.inputs, *arguments, *channels)


def _count_blocks(size: torch.Size, rows: int, columns: int) -> int:
    return math.ceil(size[0] / rows) * math.ceil(size[1] / columns)
