"""The implementations that store no scores, as one PyTorch operator: autograd, tracing, choice of kernel."""

import os
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from panet_plugin.ops import fused, stream
from panet_plugin.ops.autocast import without_autocast
from panet_plugin.ops.precision import float32_products
from panet_plugin.ops.window import Visible, visible_keys

#: The environment variable by which ``"auto"`` picks ``"triton"`` on CUDA. It is read in every call: what ``triton``
#: and ``stream`` keep for the backward pass is the same.
AUTO_TRITON = "PANET_PLUGIN_TRITON"


@torch.library.custom_op("panet_plugin::pyramid_attention", mutates_args=())
def recomputing_pyramid_attention(
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    ksize: int,
    hard: bool,
    implementation: str,
    window: int,
    frame: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute pyramid attention with blocks of scores that are computed again for the gradients.

    Args:
        query: ``(N, C, H, W)``.
        keys: ``(N, C, h, w)`` per level.
        scales: ``(N, 1, h, w)`` per level, from :func:`~panet_plugin.ops.pyramid.key_scale`.
        values: ``(N, D, h, w)`` per level.
        ksize: Side of a patch in pixels.
        hard: Paste only the best matches.
        implementation: ``"stream"``, ``"fused"``, ``"triton"``, or ``"auto"`` for the fastest that can do it.
        window: Side of the square of keys that a query sees; 0 for all keys.
        frame: See :func:`~panet_plugin.ops.window.visible_keys`.

    Returns:
        The output ``(N, D, H, W)``; for the backward pass ``(N, H, W)`` and whether products are in bfloat16, a bool.

    Raises:
        ValueError: If the implementation cannot do what is asked.
        RuntimeError: If it is not available here. Also for second derivatives.
    """
    # A result, not an argument: a compiled or exported program reads the setting of the day, once for both passes.
    bfloat16 = query.new_full((), float32_products("cpu") == "bf16", dtype=torch.bool)
    visible = _visible(query, keys, window, frame)
    kernel, options = _resolve(implementation, query, ksize, hard, bfloat16)
    batch, _, height, width = query.shape
    if batch == 0:
        return query.new_empty(0, values[0].shape[1], height, width), query.new_empty(0, height, width), bfloat16
    with without_autocast(query.device):
        return *kernel.forward(query, keys, scales, values, *options, visible), bfloat16


@torch.library.custom_op("panet_plugin::pyramid_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    normaliser: Tensor,
    bfloat16: Tensor,
    ksize: int,
    hard: bool,
    implementation: str,
    window: int,
    frame: Sequence[int],
) -> list[Tensor]:
    visible = _visible(query, keys, window, frame)
    kernel, options = _resolve(implementation, query, ksize, hard, bfloat16)
    if query.shape[0] == 0:
        return [torch.empty_like(x) for x in (query, *keys, *scales, *values)]
    # Unlike the forward pass this one may well run where autocast is on.
    with without_autocast(query.device):
        d_query, *d_levels = kernel.backward(grad, query, keys, scales, values, normaliser, *options, visible)
    return [d_query, *(d for level in d_levels for d in level)]


def _resolve(implementation: str, query: Tensor, ksize: int, hard: bool, bfloat16: Tensor) -> tuple[ModuleType, tuple]:
    """Return the module of an implementation and the arguments that only some take."""
    # Only `stream` does more than the published network.
    published = ksize == 3 and not hard and query.dtype == torch.float32
    device = query.device.type
    if implementation == "auto":
        if published and device == "cpu" and fused.is_available():
            implementation = "fused"
        elif published and device == "cuda" and os.environ.get(AUTO_TRITON) == "1":
            implementation = "triton"
        else:
            implementation = "stream"
    if implementation == "stream":
        return stream, (ksize, hard)
    if not published:
        raise ValueError(
            f"implementation {implementation!r} does float32, ksize 3, hard=False only; "
            f"got {query.dtype}, ksize {ksize}, hard={hard}: use 'auto' or 'stream'"
        )
    if implementation == "fused":
        return fused, (bool(bfloat16),)
    # Imported when asked for: it takes a while, and CPU builds of PyTorch come without it.
    from panet_plugin.ops import triton

    return triton, ()


def _visible(query: Tensor, keys: Sequence[Tensor], window: int, frame: Sequence[int]) -> list[Visible] | None:
    """Return what the queries see; None where that is everything."""
    height, width = query.shape[-2:]
    if window == 0 or (not frame and window >= max(height, width)):
        return None
    return visible_keys(window, (height, width), [key.shape[-2:] for key in keys], frame)


@recomputing_pyramid_attention.register_fake
def _(query, keys, scales, values, ksize, hard, implementation, window, frame):
    batch, _, height, width = query.shape
    return (
        query.new_empty(batch, values[0].shape[1], height, width),
        query.new_empty(batch, height, width),
        query.new_empty((), dtype=torch.bool),
    )


@_backward.register_fake
def _(grad, query, keys, scales, values, normaliser, bfloat16, ksize, hard, implementation, window, frame):
    return [x.new_empty(x.shape) for x in (query, *keys, *scales, *values)]


def _save(ctx, inputs, output) -> None:
    query, keys, scales, values, *ctx.options = inputs
    ctx.save_for_backward(query, *keys, *scales, *values, *output[1:])


def _differentiate(ctx, grad, *_):
    query, *levels, normaliser, bfloat16 = ctx.saved_tensors
    count = len(levels) // 3
    keys, scales, values = (levels[i : i + count] for i in (0, count, 2 * count))
    d_query, *d_levels = _backward(grad, query, keys, scales, values, normaliser, bfloat16, *ctx.options)
    d_keys, d_scales, d_values = (d_levels[i : i + count] for i in (0, count, 2 * count))
    # autograd takes an empty list for one of tensors.
    d_frame = None if ctx.options[-1] else []
    return d_query, d_keys, d_scales, d_values, None, None, None, None, d_frame


def _refuse(ctx, grads):
    raise RuntimeError("only implementation='dense' has second derivatives of pyramid attention")


recomputing_pyramid_attention.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)
