"""Triton kernels of pyramid attention: 3x3 patches, soft matching; :mod:`panet_plugin.ops.triton_backend` runs them.

They follow FlashAttention: the scores of a tile and a block live in registers only, and what is summed over them goes
to memory once. One program has the sums of a tile for all nine offsets of a patch, so that scores are computed once for
all. A patch is nine loads of pixels from memory, never an unfolded copy.

Images lie as lists of pixels ``(N, pixels, channels)``, with a border of zeros around each image and channels filled up
to whole blocks, in float32 or bfloat16. Of every level a tile of queries goes through the rectangle of keys that
some of them see, and a tile of keys through the rectangle of queries that see some of them. Ranges follow
:func:`panet_plugin.ops.window.visible_range`, computed in the kernels: a call copies nothing to the device. Programs
are numbered along one axis of the grid, which has room for all of them.
"""

import triton
import triton.language as tl

#: Numbers of which no kernel is compiled again for another value.
SIZES = [
    *("height", "width", "top", "left", "whole_height", "whole_width", "window", "strip_top", "strip_height"),
    *("query_pixels", "key_pixels", "num_keys", "num_levels", "num_tiles"),
    *("level", "start", "before", "level_height", "level_width", "level_top", "level_left"),
    *("level_whole_height", "level_whole_width", "first_tile"),
    *("offset", "stride", "buffer_top", "buffer_height", "first_row", "rows", "channels", "pixels"),
]

#: Numbers of a level in the table of all: see :func:`level_kernel`.
LEVEL = tl.constexpr(9)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=SIZES)
def level_kernel(
    levels,
    level, start, before, level_height, level_width, level_top, level_left, level_whole_height, level_whole_width,
    first_tile,
):  # fmt: skip
    """Write a level's line of the table: first pixel and key, size, place in the whole level and its size, first tile.

    It is of a part of a whole level, or of all of that.
    """
    line = levels + level * LEVEL
    tl.store(line, start)
    tl.store(line + 1, before)
    tl.store(line + 2, level_height)
    tl.store(line + 3, level_width)
    tl.store(line + 4, level_top)
    tl.store(line + 5, level_left)
    tl.store(line + 6, level_whole_height)
    tl.store(line + 7, level_whole_width)
    tl.store(line + 8, first_tile)


@triton.jit
def _window_start(at, first, whole, window):
    """Return where the windows of queries begin along an axis; ``first`` is the first query that is there."""
    return tl.maximum(tl.minimum(at + first - window // 2, whole - window), 0)


@triton.jit
def _keys_seen(at, first, whole, window, first_key, count, level):
    """Return the first key along an axis of a level that queries see, and the one after the last."""
    start = _window_start(at, first, whole, window).to(tl.int64)
    end = tl.minimum(start + window, whole)
    begin = tl.minimum((2 * level * start + whole - 1) // (2 * whole), level - 1)
    stop = tl.maximum((2 * level * end + whole - 1) // (2 * whole), begin + 1)
    begin = tl.minimum(tl.maximum(begin - first_key, 0), count - 1)
    stop = tl.maximum(tl.minimum(stop - first_key, count), begin + 1)
    return begin.to(tl.int32), stop.to(tl.int32)


@triton.jit
def _starts_seeing(at, first_key, count, level, whole, window):
    """Return low and high: along an axis, a window sees a key if low < its start <= high.

    That is ``_keys_seen`` turned round: the key's center is in the window, or no center is and the key is the next.
    """
    number = (at + first_key).to(tl.int64)
    center = (2 * number + 1) * whole // (2 * level)
    before = (2 * number - 1) * whole // (2 * level)
    low = tl.where(at == 0, -1, tl.minimum(center - window, before))
    high = tl.where(at == count - 1, whole, center)
    return low.to(tl.int32), high.to(tl.int32)


@triton.jit
def _queries_between(low, high, first, whole, window, count):
    """Return the first query along an axis whose window's start is in such a range, and the one after the last."""
    last_start = tl.maximum(whole - window, 0)
    shift = window // 2 - first
    begin = tl.where(low < 0, 0, tl.where(low >= last_start, count, low + 1 + shift))
    stop = tl.where(high >= last_start, count, high + 1 + shift)
    return tl.minimum(tl.maximum(begin, 0), count), tl.minimum(tl.maximum(stop, 0), count)


@triton.jit
def _queries_seeing(
    row_low, row_high, column_low, column_high, top, left, whole_height, whole_width, window, height, width
):
    """Return the first row and column, the width and the pixels of the queries that see some keys of a tile."""
    row, row_stop = _queries_between(tl.min(row_low, 0), tl.max(row_high, 0), top, whole_height, window, height)
    column, column_stop = _queries_between(
        tl.min(column_low, 0), tl.max(column_high, 0), left, whole_width, window, width
    )
    wide = tl.maximum(column_stop - column, 0)
    return row, column, wide, tl.maximum(row_stop - row, 0) * wide


@triton.jit
def _sees(starts, low, high):
    """Return for every key (row) and start of a window (column) whether that window sees the key."""
    return (low[:, None] < starts[None, :]) & (starts[None, :] <= high[:, None])


@triton.jit
def _between(numbers, begin, stop):
    """Return for every range (row) and number (column) whether the number is in the range, its end excluded."""
    return (begin[:, None] <= numbers[None, :]) & (numbers[None, :] < stop[:, None])


@triton.jit
def _program(num_tiles, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Return the tile, the first channel and the sample of a program."""
    tile, rest = tl.program_id(0) % num_tiles, tl.program_id(0) // num_tiles
    return tile, rest % (CHANNELS // BLOCK) * BLOCK, (rest // (CHANNELS // BLOCK)).to(tl.int64)


@triton.jit
def _size(line):
    """Return first pixel, first key, height and width of a level, from its line of the table."""
    return tl.load(line), tl.load(line + 1), tl.load(line + 2), tl.load(line + 3)


@triton.jit
def _ranges_seen(line, y, x, top, left, whole_height, whole_width, window):
    """Return first row, row after the last, first column and column after the last that queries see of a level."""
    row_first, row_stop = _keys_seen(
        y, top, whole_height, window, tl.load(line + 4), tl.load(line + 2), tl.load(line + 6)
    )
    column_first, column_stop = _keys_seen(
        x, left, whole_width, window, tl.load(line + 5), tl.load(line + 3), tl.load(line + 7)
    )
    return row_first, row_stop, column_first, column_stop


@triton.jit
def _tile(number, first_row, height, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return rows and columns of the pixels of a tile of some rows of an image, and whether they are in it.

    For those beyond its edges it is the row or column of the edge.
    """
    across = (width + COLUMNS - 1) // COLUMNS
    i = tl.arange(0, ROWS * COLUMNS)
    rows, columns = number // across * ROWS + i // COLUMNS, number % across * COLUMNS + i % COLUMNS
    there = (rows < height) & (columns < width)
    return first_row + tl.minimum(rows, height - 1), tl.minimum(columns, width - 1), there


@triton.jit
def _block(start, count, top, left, wide, BLOCK: tl.constexpr):
    """Return rows and columns of the next pixels of a rectangle of ``count``, and whether they are in it."""
    i = start + tl.arange(0, BLOCK)
    there = i < count
    i = tl.minimum(i, count - 1)
    return top + i // wide, left + i % wide, there


@triton.jit
def _place(first, rows, columns, step):
    """Return the places of some pixels in a list in which an image with a border of zeros begins at ``first``."""
    return first + (rows + 1) * step + columns + 1


@triton.jit
def _move(image, place, CHANNELS: tl.constexpr):
    """Return where a list begins at a place of it. From there on 32 bits do for what a program needs."""
    return image + place.to(tl.int64) * CHANNELS


@triton.jit
def _pixels(image, at, step, offset, first, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Load some channels of the pixel at one of the nine offsets from every position."""
    at += (offset // 3 - 1) * step + offset % 3 - 1
    return tl.load(image + (at * CHANNELS)[:, None] + (first + tl.arange(0, BLOCK))[None, :])


@triton.jit
def _products(
    left, left_at, left_step, right, right_at, right_step,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Multiply the patches around all positions of two images."""
    total = tl.zeros([left_at.shape[0], right_at.shape[0]], tl.float32)
    # One loop and not unrolled: operands of all offsets at once would not fit into shared memory.
    for i in range(0, 9 * (CHANNELS // BLOCK)):
        a = _pixels(left, left_at, left_step, i % 9, i // 9 * BLOCK, CHANNELS, BLOCK)
        b = _pixels(right, right_at, right_step, i % 9, i // 9 * BLOCK, CHANNELS, BLOCK)
        total = tl.dot(a, tl.trans(b), total, input_precision=PRECISION)
    return total


@triton.jit
def _add(
    total, weights, image, at, step, offset, first,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add weighted pixels at an offset from every position."""
    pixels = _pixels(image, at, step, offset, first, CHANNELS, BLOCK)
    return tl.dot(weights.to(pixels.dtype), pixels, total, input_precision=PRECISION)


@triton.jit
def _add_patches(
    s0, s1, s2, s3, s4, s5, s6, s7, s8, weights, image, at, step, first,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add weighted patches around every position to the sums of all offsets."""
    s0 = _add(s0, weights, image, at, step, 0, first, CHANNELS, BLOCK, PRECISION)
    s1 = _add(s1, weights, image, at, step, 1, first, CHANNELS, BLOCK, PRECISION)
    s2 = _add(s2, weights, image, at, step, 2, first, CHANNELS, BLOCK, PRECISION)
    s3 = _add(s3, weights, image, at, step, 3, first, CHANNELS, BLOCK, PRECISION)
    s4 = _add(s4, weights, image, at, step, 4, first, CHANNELS, BLOCK, PRECISION)
    s5 = _add(s5, weights, image, at, step, 5, first, CHANNELS, BLOCK, PRECISION)
    s6 = _add(s6, weights, image, at, step, 6, first, CHANNELS, BLOCK, PRECISION)
    s7 = _add(s7, weights, image, at, step, 7, first, CHANNELS, BLOCK, PRECISION)
    s8 = _add(s8, weights, image, at, step, 8, first, CHANNELS, BLOCK, PRECISION)
    return s0, s1, s2, s3, s4, s5, s6, s7, s8


@triton.jit
def _store_patches(
    patches, index, there, s0, s1, s2, s3, s4, s5, s6, s7, s8, share, first,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Store sums of all offsets, times a share of each row, as patches ``(pixels, 9, CHANNELS)``."""
    to = patches + (index * (9 * CHANNELS))[:, None] + (first + tl.arange(0, BLOCK))[None, :]
    mask = there[:, None]
    tl.store(to, s0 * share, mask)
    tl.store(to + CHANNELS, s1 * share, mask)
    tl.store(to + 2 * CHANNELS, s2 * share, mask)
    tl.store(to + 3 * CHANNELS, s3 * share, mask)
    tl.store(to + 4 * CHANNELS, s4 * share, mask)
    tl.store(to + 5 * CHANNELS, s5 * share, mask)
    tl.store(to + 6 * CHANNELS, s6 * share, mask)
    tl.store(to + 7 * CHANNELS, s7 * share, mask)
    tl.store(to + 8 * CHANNELS, s8 * share, mask)


@triton.jit(do_not_specialize=SIZES)
def forward_kernel(
    query, keys, scales, values, levels, patches, log_sums,
    height, width, top, left, whole_height, whole_width, window,
    query_pixels, key_pixels, num_keys, num_levels, num_tiles, strip_top, strip_height,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the output's patches of a tile of queries in some rows of the image, and the normalizer."""
    tile, first, sample = _program(num_tiles, D, D_BLOCK)
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    y, x, there = _tile(tile, strip_top, strip_height, width, ROWS, COLUMNS)
    corner = _place(0, tl.min(y, 0), tl.min(x, 0), width + 2)
    query, at = _move(query, corner, C), _place(-corner, y, x, width + 2)
    peak = tl.full([ROWS * COLUMNS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS * COLUMNS], tl.float32)
    s0 = tl.zeros([ROWS * COLUMNS, D_BLOCK], tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    for level in range(0, num_levels):
        line = levels + level * LEVEL
        start, before, _, level_width = _size(line)
        row_first, row_stop, column_first, column_stop = _ranges_seen(
            line, y, x, top, left, whole_height, whole_width, window
        )
        row, column = tl.min(row_first, 0), tl.min(column_first, 0)
        wide = tl.max(column_stop, 0) - column
        count = (tl.max(row_stop, 0) - row) * wide
        for begin in range(0, count, BLOCK):
            rows, columns, inside = _block(begin, count, row, column, wide, BLOCK)
            corner = _place(start, row + begin // wide, column + begin % wide, level_width + 2)
            some_keys, some_values = _move(keys, corner, C), _move(values, corner, D)
            key_at = _place(start - corner, rows, columns, level_width + 2)
            seen = _between(rows, row_first, row_stop) & _between(columns, column_first, column_stop) & inside[None, :]
            factor = tl.load(scales + sample * num_keys + before + rows * level_width + columns)
            scores = _products(query, at, width + 2, some_keys, key_at, level_width + 2, C, C_BLOCK, PRECISION)
            scores = tl.where(seen, scores * factor[None, :], float("-inf"))
            top_score = tl.maximum(peak, tl.max(scores, 1))
            # As long as a query has seen no key there is nothing to shrink, and infinity less itself is no number.
            base = tl.where(top_score == float("-inf"), 0.0, top_score)
            shrink = tl.exp2(peak - base)
            weights = tl.exp2(scores - base[:, None])
            total = total * shrink + tl.sum(weights, 1)
            peak = top_score
            f = shrink[:, None]
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = _add_patches(
                s0 * f, s1 * f, s2 * f, s3 * f, s4 * f, s5 * f, s6 * f, s7 * f, s8 * f,
                weights, some_values, key_at, level_width + 2, first, D, D_BLOCK, PRECISION,
            )  # fmt: skip
    share = 1 / total[:, None]
    index = (sample * strip_height + y - strip_top) * width + x
    _store_patches(patches, index, there, s0, s1, s2, s3, s4, s5, s6, s7, s8, share, first, D, D_BLOCK)
    # Every program of the tile has it: all write the same.
    tl.store(log_sums + (sample * height + y) * width + x, peak + tl.log2(total), there)


@triton.jit(do_not_specialize=SIZES)
def mean_kernel(
    grad, patches, means,
    height, width, query_pixels, pixels,
    D: tl.constexpr, D_BLOCK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write every query's mean over keys of weight times slope: its output patch times that of the gradient."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = index < pixels
    index = tl.minimum(index, pixels - 1)
    sample, place = index // (height * width), index % (height * width)
    at = sample * query_pixels + _place(0, place // width, place % width, width + 2)
    mean = tl.zeros([BLOCK], tl.float32)
    for i in range(0, 9 * (D // D_BLOCK)):
        offset, first = i % 9, i // 9 * D_BLOCK
        slope = _pixels(grad, at, width + 2, offset, first, D, D_BLOCK).to(tl.float32)
        patch = tl.load(patches + ((index * 9 + offset) * D)[:, None] + (first + tl.arange(0, D_BLOCK))[None, :])
        mean += tl.sum(slope * patch, 1)
    tl.store(means + index, mean, there)


@triton.jit(do_not_specialize=SIZES)
def query_kernel(
    query, keys, scales, values, levels, grad, log_sums, means, d_query,
    height, width, top, left, whole_height, whole_width, window,
    query_pixels, key_pixels, num_keys, num_levels, num_tiles,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the patches of the query's gradient of a tile of queries."""
    tile, first, sample = _program(num_tiles, C, C_BLOCK)
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    grad += sample * query_pixels * D
    y, x, there = _tile(tile, 0, height, width, ROWS, COLUMNS)
    corner = _place(0, tl.min(y, 0), tl.min(x, 0), width + 2)
    query, grad, at = _move(query, corner, C), _move(grad, corner, D), _place(-corner, y, x, width + 2)
    index = (sample * height + y) * width + x
    log_sum, mean = tl.load(log_sums + index)[:, None], tl.load(means + index)[:, None]
    s0 = tl.zeros([ROWS * COLUMNS, C_BLOCK], tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    for level in range(0, num_levels):
        line = levels + level * LEVEL
        start, before, _, level_width = _size(line)
        row_first, row_stop, column_first, column_stop = _ranges_seen(
            line, y, x, top, left, whole_height, whole_width, window
        )
        row, column = tl.min(row_first, 0), tl.min(column_first, 0)
        wide = tl.max(column_stop, 0) - column
        count = (tl.max(row_stop, 0) - row) * wide
        for begin in range(0, count, BLOCK):
            rows, columns, inside = _block(begin, count, row, column, wide, BLOCK)
            corner = _place(start, row + begin // wide, column + begin % wide, level_width + 2)
            some_keys, some_values = _move(keys, corner, C), _move(values, corner, D)
            key_at = _place(start - corner, rows, columns, level_width + 2)
            seen = _between(rows, row_first, row_stop) & _between(columns, column_first, column_stop) & inside[None, :]
            factor = tl.load(scales + sample * num_keys + before + rows * level_width + columns)[None, :]
            scores = _products(query, at, width + 2, some_keys, key_at, level_width + 2, C, C_BLOCK, PRECISION) * factor
            weights = tl.where(seen, tl.exp2(scores - log_sum), 0.0)
            slopes = _products(grad, at, width + 2, some_values, key_at, level_width + 2, D, D_BLOCK, PRECISION)
            slopes = weights * (slopes - mean) * (factor * LN_2)
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = _add_patches(
                s0, s1, s2, s3, s4, s5, s6, s7, s8,
                slopes, some_keys, key_at, level_width + 2, first, C, C_BLOCK, PRECISION,
            )  # fmt: skip
    _store_patches(d_query, index, there, s0, s1, s2, s3, s4, s5, s6, s7, s8, 1.0, first, C, C_BLOCK)


@triton.jit
def _level_of(tile, levels, num_levels):
    """Return the level in which a tile of keys is, which tile of it that is."""
    level = 0
    for i in range(1, num_levels):
        level += (tl.load(levels + i * LEVEL + 8) <= tile).to(tl.int32)
    return level, tile - tl.load(levels + level * LEVEL + 8)


@triton.jit(do_not_specialize=SIZES)
def key_kernel(
    query, keys, scales, values, levels, grad, log_sums, means, d_keys, d_scales,
    height, width, top, left, whole_height, whole_width, window,
    query_pixels, key_pixels, num_keys, num_levels, num_tiles,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the patches of the keys' gradient of a tile of keys, and the gradient of their scales."""
    tile, first, sample = _program(num_tiles, C, C_BLOCK)
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    grad += sample * query_pixels * D
    log_sums += sample * height * width
    means += sample * height * width
    level, tile = _level_of(tile, levels, num_levels)
    line = levels + level * LEVEL
    start, before, level_height, level_width = _size(line)
    y, x, there = _tile(tile, 0, level_height, level_width, ROWS, COLUMNS)
    corner = _place(start, tl.min(y, 0), tl.min(x, 0), level_width + 2)
    keys, values = _move(keys, corner, C), _move(values, corner, D)
    at = _place(start - corner, y, x, level_width + 2)
    index = sample * num_keys + before + y * level_width + x
    factor = tl.load(scales + index)[:, None]
    row_low, row_high = _starts_seeing(y, tl.load(line + 4), level_height, tl.load(line + 6), whole_height, window)
    column_low, column_high = _starts_seeing(x, tl.load(line + 5), level_width, tl.load(line + 7), whole_width, window)
    row, column, wide, count = _queries_seeing(
        row_low, row_high, column_low, column_high, top, left, whole_height, whole_width, window, height, width
    )
    slope_of_scale = tl.zeros([ROWS * COLUMNS], tl.float32)
    s0 = tl.zeros([ROWS * COLUMNS, C_BLOCK], tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    for begin in range(0, count, BLOCK):
        rows, columns, inside = _block(begin, count, row, column, wide, BLOCK)
        corner = _place(0, row + begin // wide, column + begin % wide, width + 2)
        some_queries, some_grad = _move(query, corner, C), _move(grad, corner, D)
        query_at = _place(-corner, rows, columns, width + 2)
        row_start = _window_start(rows, top, whole_height, window)
        column_start = _window_start(columns, left, whole_width, window)
        seen = _sees(row_start, row_low, row_high) & inside[None, :]
        seen &= _sees(column_start, column_low, column_high)
        log_sum = tl.load(log_sums + rows * width + columns)[None, :]
        mean = tl.load(means + rows * width + columns)[None, :]
        sums = _products(keys, at, level_width + 2, some_queries, query_at, width + 2, C, C_BLOCK, PRECISION)
        weights = tl.where(seen, tl.exp2(sums * factor - log_sum), 0.0)
        slopes = _products(values, at, level_width + 2, some_grad, query_at, width + 2, D, D_BLOCK, PRECISION)
        slopes = weights * (slopes - mean)
        slope_of_scale += tl.sum(slopes * sums, 1)
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = _add_patches(
            s0, s1, s2, s3, s4, s5, s6, s7, s8,
            slopes * (factor * LN_2), some_queries, query_at, width + 2, first, C, C_BLOCK, PRECISION,
        )  # fmt: skip
    _store_patches(d_keys, index, there, s0, s1, s2, s3, s4, s5, s6, s7, s8, 1.0, first, C, C_BLOCK)
    tl.store(d_scales + index, slope_of_scale, there)


@triton.jit(do_not_specialize=SIZES)
def value_kernel(
    query, keys, scales, levels, grad, log_sums, d_values,
    height, width, top, left, whole_height, whole_width, window,
    query_pixels, key_pixels, num_keys, num_levels, num_tiles,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the patches of the values' gradient of a tile of keys."""
    tile, first, sample = _program(num_tiles, D, D_BLOCK)
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    grad += sample * query_pixels * D
    log_sums += sample * height * width
    level, tile = _level_of(tile, levels, num_levels)
    line = levels + level * LEVEL
    start, before, level_height, level_width = _size(line)
    y, x, there = _tile(tile, 0, level_height, level_width, ROWS, COLUMNS)
    corner = _place(start, tl.min(y, 0), tl.min(x, 0), level_width + 2)
    keys, at = _move(keys, corner, C), _place(start - corner, y, x, level_width + 2)
    index = sample * num_keys + before + y * level_width + x
    factor = tl.load(scales + index)[:, None]
    row_low, row_high = _starts_seeing(y, tl.load(line + 4), level_height, tl.load(line + 6), whole_height, window)
    column_low, column_high = _starts_seeing(x, tl.load(line + 5), level_width, tl.load(line + 7), whole_width, window)
    row, column, wide, count = _queries_seeing(
        row_low, row_high, column_low, column_high, top, left, whole_height, whole_width, window, height, width
    )
    s0 = tl.zeros([ROWS * COLUMNS, D_BLOCK], tl.float32)
    s1, s2, s3, s4, s5, s6, s7, s8 = s0, s0, s0, s0, s0, s0, s0, s0
    for begin in range(0, count, BLOCK):
        rows, columns, inside = _block(begin, count, row, column, wide, BLOCK)
        corner = _place(0, row + begin // wide, column + begin % wide, width + 2)
        some_queries, some_grad = _move(query, corner, C), _move(grad, corner, D)
        query_at = _place(-corner, rows, columns, width + 2)
        row_start = _window_start(rows, top, whole_height, window)
        column_start = _window_start(columns, left, whole_width, window)
        seen = _sees(row_start, row_low, row_high) & inside[None, :]
        seen &= _sees(column_start, column_low, column_high)
        log_sum = tl.load(log_sums + rows * width + columns)[None, :]
        sums = _products(keys, at, level_width + 2, some_queries, query_at, width + 2, C, C_BLOCK, PRECISION)
        weights = tl.where(seen, tl.exp2(sums * factor - log_sum), 0.0)
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = _add_patches(
            s0, s1, s2, s3, s4, s5, s6, s7, s8, weights, some_grad, query_at, width + 2, first, D, D_BLOCK, PRECISION
        )
    _store_patches(d_values, index, there, s0, s1, s2, s3, s4, s5, s6, s7, s8, 1.0, first, D, D_BLOCK)


@triton.jit(do_not_specialize=SIZES)
def fold_kernel(
    patches, output,
    height, width, offset, stride, buffer_top, buffer_height, first_row, rows, channels,
    D: tl.constexpr, D_BLOCK: tl.constexpr, BLOCK: tl.constexpr, DIVISOR: tl.constexpr,
):  # fmt: skip
    """Add patches up to some rows of images ``(N, channels, height, width)``, always in the same order.

    Those of sample n are ``stride * n + offset`` and the ones after it, of some rows of pixels from ``buffer_top`` on.
    """
    blocks = (rows * width + BLOCK - 1) // BLOCK
    block, rest = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    first, sample = rest % (D // D_BLOCK) * D_BLOCK, (rest // (D // D_BLOCK)).to(tl.int64)
    index = block * BLOCK + tl.arange(0, BLOCK)
    y, x = first_row + index // width, index % width
    channel = first + tl.arange(0, D_BLOCK)
    total = tl.zeros([BLOCK, D_BLOCK], tl.float32)
    for i in range(0, 9):
        # The patch in which this pixel is at this offset.
        row, column = y - (i // 3 - 1) - buffer_top, x - (i % 3 - 1)
        there = (row >= 0) & (row < buffer_height) & (column >= 0) & (column < width)
        at = sample * stride + offset + row * width + column
        total += tl.load(patches + ((at * 9 + i) * D)[:, None] + channel[None, :], there[:, None], other=0.0)
    to = ((sample * channels + channel[None, :]) * height + y[:, None]) * width + x[:, None]
    tl.store(output + to, total / DIVISOR, (index < rows * width)[:, None] & (channel < channels)[None, :])
