"""Pyramid attention by Triton kernels for CUDA: 3x3 patches, soft matching, float32; no autograd inside.

The kernels follow FlashAttention: scores of a block of queries and a block of keys live in registers only, and what
is summed over them goes to memory once. A patch is nine loads from the list of pixels, never an unfolded copy.
Results are patches too, added up by ``F.fold``, so that nothing depends on the order in which blocks finish.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from panet_plugin.ops.pyramid import overlap_divisor
from panet_plugin.ops.window import Visible

#: Queries and keys of one block.
QUERIES, KEYS = tl.constexpr(16), tl.constexpr(32)


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
def _store(patches, rows, left, middle, right, dy, first, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Store one image row of patches, ``(positions, 9, CHANNELS)``."""
    at = patches + (rows * 9 + (dy + 1) * 3)[:, None] * CHANNELS + (first + tl.arange(0, BLOCK))[None, :]
    tl.store(at, left)
    tl.store(at + CHANNELS, middle)
    tl.store(at + 2 * CHANNELS, right)


@triton.jit
def _forward_kernel(
    query, query_at, query_step, keys, key_at, key_step, scale, bias, values, patches, log_sums,
    query_pixels, key_pixels, num_queries, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every output patch, and the log-sum-exp."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * D_BLOCK
    query += sample * query_pixels * C
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    rows = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    at, step = tl.load(query_at + rows), tl.load(query_step + rows)
    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    left = tl.zeros([QUERIES, D_BLOCK], tl.float32)
    middle = tl.zeros([QUERIES, D_BLOCK], tl.float32)
    right = tl.zeros([QUERIES, D_BLOCK], tl.float32)
    for start in range(0, num_keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k_at, k_step = tl.load(key_at + columns), tl.load(key_step + columns)
        scores = _products(query, at, step, keys, k_at, k_step, C, C_BLOCK)
        scores = scores * tl.load(scale + sample * num_keys + columns)[None, :] + tl.load(bias + columns)[None, :]
        top = tl.maximum(peak, tl.max(scores, 1))
        shrink = tl.exp(peak - top)
        weights = tl.exp(scores - top[:, None])
        total = total * shrink + tl.sum(weights, 1)
        left = _add(left * shrink[:, None], weights, values, k_at, k_step, dy, -1, first, D, D_BLOCK)
        middle = _add(middle * shrink[:, None], weights, values, k_at, k_step, dy, 0, first, D, D_BLOCK)
        right = _add(right * shrink[:, None], weights, values, k_at, k_step, dy, 1, first, D, D_BLOCK)
        peak = top
    share = 1 / total[:, None]
    patches += sample * num_queries * 9 * D
    _store(patches, rows, left * share, middle * share, right * share, dy, first, D, D_BLOCK)
    # Every program of the block has it: all write the same.
    tl.store(log_sums + sample * num_queries + rows, peak + tl.log(total))


@triton.jit
def _mean_kernel(
    query, query_at, query_step, keys, key_at, key_step, scale, bias, values, grad, log_sums, means,
    query_pixels, key_pixels, num_queries, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write every query's mean over keys of weight times slope."""
    sample = tl.program_id(2).to(tl.int64)
    query += sample * query_pixels * C
    grad += sample * query_pixels * D
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    rows = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    at, step = tl.load(query_at + rows), tl.load(query_step + rows)
    log_sum = tl.load(log_sums + sample * num_queries + rows)
    mean = tl.zeros([QUERIES], tl.float32)
    for start in range(0, num_keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k_at, k_step = tl.load(key_at + columns), tl.load(key_step + columns)
        scores = _products(query, at, step, keys, k_at, k_step, C, C_BLOCK)
        scores = scores * tl.load(scale + sample * num_keys + columns)[None, :] + tl.load(bias + columns)[None, :]
        slopes = _products(grad, at, step, values, k_at, k_step, D, D_BLOCK)
        mean += tl.sum(tl.exp(scores - log_sum[:, None]) * slopes, 1)
    tl.store(means + sample * num_queries + rows, mean)


@triton.jit
def _query_kernel(
    query, query_at, query_step, keys, key_at, key_step, scale, bias, values, grad, log_sums, means, d_query,
    query_pixels, key_pixels, num_queries, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every query patch's gradient."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * C_BLOCK
    query += sample * query_pixels * C
    grad += sample * query_pixels * D
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    rows = tl.program_id(0).to(tl.int64) * QUERIES + tl.arange(0, QUERIES)
    at, step = tl.load(query_at + rows), tl.load(query_step + rows)
    log_sum = tl.load(log_sums + sample * num_queries + rows)
    mean = tl.load(means + sample * num_queries + rows)
    left = tl.zeros([QUERIES, C_BLOCK], tl.float32)
    middle = tl.zeros([QUERIES, C_BLOCK], tl.float32)
    right = tl.zeros([QUERIES, C_BLOCK], tl.float32)
    for start in range(0, num_keys, KEYS):
        columns = start + tl.arange(0, KEYS)
        k_at, k_step = tl.load(key_at + columns), tl.load(key_step + columns)
        factor = tl.load(scale + sample * num_keys + columns)[None, :]
        scores = _products(query, at, step, keys, k_at, k_step, C, C_BLOCK) * factor
        weights = tl.exp(scores + tl.load(bias + columns)[None, :] - log_sum[:, None])
        slopes = _products(grad, at, step, values, k_at, k_step, D, D_BLOCK)
        slopes = weights * (slopes - mean[:, None]) * factor
        left = _add(left, slopes, keys, k_at, k_step, dy, -1, first, C, C_BLOCK)
        middle = _add(middle, slopes, keys, k_at, k_step, dy, 0, first, C, C_BLOCK)
        right = _add(right, slopes, keys, k_at, k_step, dy, 1, first, C, C_BLOCK)
    _store(d_query + sample * num_queries * 9 * C, rows, left, middle, right, dy, first, C, C_BLOCK)


@triton.jit
def _key_kernel(
    query, query_at, query_step, keys, key_at, key_step, scale, bias, values, grad, log_sums, means,
    d_keys, d_scale, query_pixels, key_pixels, num_queries, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every key patch's gradient, and the gradient of its scale."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * C_BLOCK
    query += sample * query_pixels * C
    grad += sample * query_pixels * D
    keys += sample * key_pixels * C
    values += sample * key_pixels * D
    columns = tl.program_id(0).to(tl.int64) * KEYS + tl.arange(0, KEYS)
    k_at, k_step = tl.load(key_at + columns), tl.load(key_step + columns)
    factor = tl.load(scale + sample * num_keys + columns)[:, None]
    absent = tl.load(bias + columns)[:, None]
    left = tl.zeros([KEYS, C_BLOCK], tl.float32)
    middle = tl.zeros([KEYS, C_BLOCK], tl.float32)
    right = tl.zeros([KEYS, C_BLOCK], tl.float32)
    slope_of_scale = tl.zeros([KEYS], tl.float32)
    for start in range(0, num_queries, QUERIES):
        rows = start + tl.arange(0, QUERIES)
        at, step = tl.load(query_at + rows), tl.load(query_step + rows)
        log_sum = tl.load(log_sums + sample * num_queries + rows)[None, :]
        mean = tl.load(means + sample * num_queries + rows)[None, :]
        sums = _products(keys, k_at, k_step, query, at, step, C, C_BLOCK)
        weights = tl.exp(sums * factor + absent - log_sum)
        slopes = weights * (_products(values, k_at, k_step, grad, at, step, D, D_BLOCK) - mean)
        slope_of_scale += tl.sum(slopes * sums, 1)
        slopes *= factor
        left = _add(left, slopes, query, at, step, dy, -1, first, C, C_BLOCK)
        middle = _add(middle, slopes, query, at, step, dy, 0, first, C, C_BLOCK)
        right = _add(right, slopes, query, at, step, dy, 1, first, C, C_BLOCK)
    _store(d_keys + sample * num_keys * 9 * C, columns, left, middle, right, dy, first, C, C_BLOCK)
    tl.store(d_scale + sample * num_keys + columns, slope_of_scale)


@triton.jit
def _value_kernel(
    query, query_at, query_step, keys, key_at, key_step, scale, bias, grad, log_sums, d_values,
    query_pixels, key_pixels, num_queries, num_keys,
    C: tl.constexpr, C_BLOCK: tl.constexpr, D: tl.constexpr, D_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write one row of every value patch's gradient."""
    sample = tl.program_id(2).to(tl.int64)
    dy = tl.program_id(1) % 3 - 1
    first = tl.program_id(1) // 3 * D_BLOCK
    query += sample * query_pixels * C
    grad += sample * query_pixels * D
    keys += sample * key_pixels * C
    columns = tl.program_id(0).to(tl.int64) * KEYS + tl.arange(0, KEYS)
    k_at, k_step = tl.load(key_at + columns), tl.load(key_step + columns)
    factor = tl.load(scale + sample * num_keys + columns)[:, None]
    absent = tl.load(bias + columns)[:, None]
    left = tl.zeros([KEYS, D_BLOCK], tl.float32)
    middle = tl.zeros([KEYS, D_BLOCK], tl.float32)
    right = tl.zeros([KEYS, D_BLOCK], tl.float32)
    for start in range(0, num_queries, QUERIES):
        rows = start + tl.arange(0, QUERIES)
        at, step = tl.load(query_at + rows), tl.load(query_step + rows)
        log_sum = tl.load(log_sums + sample * num_queries + rows)[None, :]
        sums = _products(keys, k_at, k_step, query, at, step, C, C_BLOCK)
        weights = tl.exp(sums * factor + absent - log_sum)
        left = _add(left, weights, grad, at, step, dy, -1, first, D, D_BLOCK)
        middle = _add(middle, weights, grad, at, step, dy, 0, first, D, D_BLOCK)
        right = _add(right, weights, grad, at, step, dy, 1, first, D, D_BLOCK)
    _store(d_values + sample * num_keys * 9 * D, columns, left, middle, right, dy, first, D, D_BLOCK)


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
    call = _Call(query, keys, scales, values)
    patches, log_sums = call.empty(call.queries, 9, call.depth), call.empty(call.queries)
    call.run(_forward_kernel, call.queries, 3 * (call.depth // call.depth_block), call.values, patches, log_sums)
    (output,) = call.queries.fold(patches, values[0].shape[1])
    return output / overlap_divisor(3), log_sums[:, : call.queries.count].view(-1, *query.shape[2:]).contiguous()


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
    call = _Call(query, keys, scales, values)
    cotangent = call.queries.pack([grad / overlap_divisor(3)], call.depth)
    # Blocks are filled up with copies of the last query: with infinity here they weigh nothing.
    log_sums = F.pad(log_sums.flatten(1), (0, len(call.queries.at) - call.queries.count), value=math.inf).contiguous()
    means, d_scale = call.empty(call.queries), call.empty(call.keys)
    d_query, d_keys = call.empty(call.queries, 9, call.channels), call.empty(call.keys, 9, call.channels)
    d_values = call.empty(call.keys, 9, call.depth)
    shared = call.values, cotangent, log_sums, means
    call.run(_mean_kernel, call.queries, 1, *shared)
    call.run(_query_kernel, call.queries, 3 * (call.channels // call.channel_block), *shared, d_query)
    call.run(_key_kernel, call.keys, 3 * (call.channels // call.channel_block), *shared, d_keys, d_scale)
    call.run(_value_kernel, call.keys, 3 * (call.depth // call.depth_block), cotangent, log_sums, d_values)
    (query_grad,) = call.queries.fold(d_query, query.shape[1])
    d_scales = d_scale[:, : call.keys.count].split(call.keys.lengths, 1)
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
        block: Positions are filled up to a multiple of this with the last one.
        device: Of the positions.
    """

    def __init__(self, sizes: Sequence[torch.Size], block: int, device: torch.device) -> None:
        self.sizes, self.block = sizes, block
        self.lengths = [height * width for height, width in sizes]
        self.count = sum(self.lengths)
        positions, steps, start = [], [], 0
        for height, width in sizes:
            stride = width + 2
            inner = torch.arange((height + 2) * stride).view(-1, stride)[1:-1, 1:-1]
            positions.append(start + inner.flatten())
            steps.append(torch.full((height * width,), stride))
            start += (height + 2) * stride
        self.total = start
        fill = torch.arange(self.count + -self.count % block).clamp_max(self.count - 1)
        #: Place of every pixel in the list, and the way from there to the image row below.
        self.at, self.step = (torch.cat(x)[fill].to(device) for x in (positions, steps))

    def pack(self, images: Sequence[Tensor], channels: int) -> Tensor:
        """Lay images out as ``(N, pixels, channels)``, with zeros for channels that they lack."""
        padded = [F.pad(x, (1, 1, 1, 1, 0, channels - x.shape[1])).flatten(2) for x in images]
        return torch.cat(padded, 2).transpose(1, 2).contiguous()

    def fold(self, patches: Tensor, channels: int) -> list[Tensor]:
        """Add ``(N, positions, 9, channels)`` patches up to images."""
        columns = patches[:, : self.count, :, :channels].permute(0, 3, 2, 1).flatten(1, 2)
        parts = columns.split(self.lengths, 2)
        return [F.fold(part, size, 3, padding=1) for part, size in zip(parts, self.sizes, strict=True)]


class _Call:
    """The arguments that all kernels share."""

    def __init__(self, query: Tensor, keys: Sequence[Tensor], scales: Sequence[Tensor], values: Sequence[Tensor]):
        if not query.is_cuda and not triton.knobs.runtime.interpret:
            raise ValueError(f"implementation 'triton' needs CUDA tensors, got {query.device}; use 'auto' or 'stream'")
        # Matrix products want multiples of 16.
        self.channels, self.depth = (math.ceil(x.shape[1] / 16) * 16 for x in (query, values[0]))
        self.channel_block, self.depth_block = (math.gcd(n, 64) for n in (self.channels, self.depth))
        self.batch, self.like = len(query), query
        self.queries = _Pixels([query.shape[2:]], QUERIES.value, query.device)
        self.keys = _Pixels([key.shape[2:] for key in keys], KEYS.value, query.device)
        self.values = self.keys.pack(values, self.depth)
        missing = len(self.keys.at) - self.keys.count
        scale = F.pad(torch.cat([scale.flatten(1) for scale in scales], 1), (0, missing)).contiguous()
        bias = F.pad(query.new_zeros(self.keys.count), (0, missing), value=-math.inf)
        self.inputs = (
            *(self.queries.pack([query], self.channels), self.queries.at, self.queries.step),
            *(self.keys.pack(keys, self.channels), self.keys.at, self.keys.step, scale, bias),
        )

    def empty(self, pixels: _Pixels, *shape: int) -> Tensor:
        """Allocate something for every position of every sample."""
        return self.like.new_empty(self.batch, len(pixels.at), *shape)

    def run(self, kernel: triton.JITFunction, pixels: _Pixels, parts: int, *arguments: Tensor) -> None:
        """Run a kernel for every block of positions, part of its work and sample."""
        grid = len(pixels.at) // pixels.block, parts, self.batch
        sizes = self.queries.total, self.keys.total, len(self.queries.at), len(self.keys.at)
        blocks = self.channels, self.channel_block, self.depth, self.depth_block
        with torch.cuda.device_of(self.like):
            kernel[grid](*self.inputs, *arguments, *sizes, *blocks)
