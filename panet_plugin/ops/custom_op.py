"""The implementations that do not store scores, as one PyTorch operator: autograd, tracing, choice of kernel."""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from panet_plugin.ops.autocast import without_autocast
from panet_plugin.ops.backends import IN_PROGRAMS, choose, find
from panet_plugin.ops.precision import PRODUCTS, float32_products
from panet_plugin.ops.problem import Problem, Saved
from panet_plugin.ops.triton_backend import patches_shape

#: Of both operators. PyTorch before 2.5 does not derive a schema from sequences of collections.abc or default strings.
INPUTS = "Tensor query, Tensor[] keys, Tensor[] scales, Tensor[] values"
OPTIONS = "SymInt ksize, bool hard, str implementation, SymInt window, SymInt[] frame"


@torch.library.custom_op(
    "panet_plugin::pyramid_attention",
    mutates_args=(),
    schema=f"({INPUTS}, {OPTIONS}, str products='auto', bool training=False) -> (Tensor, Tensor, Tensor, Tensor)",
)
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
    products: str = "auto",
    training: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute pyramid attention in blocks of scores, which are computed again for the gradients.

    Args:
        query: See :class:`~panet_plugin.ops.problem.Problem`, also for arguments not described here.
        keys: Keys of every level.
        scales: Scales of every level.
        values: Values of every level.
        ksize: Side of a patch in pixels.
        hard: Paste only the best matches.
        implementation: ``"stream"``, ``"fused"``, ``"triton"``, or ``"auto"`` for the faster of the first two that
            supports the problem.
        window: Side of the square of keys that a query sees; 0 for all keys.
        frame: Positions of parts in larger maps.
        products: Precision, or ``"auto"`` for what PyTorch allows on a CPU when the operator runs.
        training: Only for ``"triton"``.

    Returns:
        The output ``(N, D, H, W)``; for the backward pass the normalizer ``(N, H, W)``, the index of ``products`` in
        ``PRODUCTS`` if that was ``"auto"``, and the patches or nothing.

    Raises:
        ValueError: If the implementation does not support the problem.
        RuntimeError: On second derivatives.
    """
    # A result, not an argument: compiled and exported programs read the setting when they run, once for both passes. On
    # CUDA, where reading it back would synchronize with the device, it is an argument.
    number = PRODUCTS.index(float32_products("cpu")) if products == "auto" and query.is_cpu else 0
    setting = query.new_full((), number, dtype=torch.uint8)
    problem, backend = _resolve(
        query, keys, scales, values, ksize, hard, implementation, window, frame, products, training, setting
    )
    if query.shape[0] == 0:
        fake = _fake(query, keys, scales, values, ksize, hard, implementation, window, frame, products, training)
        return fake[0], fake[1], setting, fake[3]
    with without_autocast(query.device):
        output, saved = backend.forward(problem)
    return output, saved.normalizer, setting, query.new_empty(0) if saved.patches is None else saved.patches


@torch.library.custom_op(
    "panet_plugin::pyramid_attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {INPUTS}, Tensor normalizer, Tensor setting, Tensor patches, {OPTIONS}, str products, "
    "bool training) -> Tensor[]",
)
def _backward(
    grad: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    normalizer: Tensor,
    setting: Tensor,
    patches: Tensor,
    ksize: int,
    hard: bool,
    implementation: str,
    window: int,
    frame: Sequence[int],
    products: str,
    training: bool,
) -> list[Tensor]:
    problem, backend = _resolve(
        query, keys, scales, values, ksize, hard, implementation, window, frame, products, training, setting
    )
    if query.shape[0] == 0:
        return [torch.empty_like(x) for x in (query, *keys, *scales, *values)]
    # Unlike the forward pass, this may run with autocast enabled.
    with without_autocast(query.device):
        d_query, *d_levels = backend.backward(grad, problem, Saved(normalizer, patches))
    return [d_query, *(d for level in d_levels for d in level)]


def _resolve(
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    ksize: int,
    hard: bool,
    implementation: str,
    window: int,
    frame: Sequence[int],
    products: str,
    training: bool,
    setting: Tensor,
) -> tuple[Problem, ModuleType]:
    """Return the problem given by the operators' arguments, and the implementation."""
    if products == "auto":
        products = PRODUCTS[int(setting)] if setting.is_cpu else "ieee"
    problem = Problem(query, keys, scales, values, ksize, hard, window or None, frame, products, training)
    return problem, choose(problem, IN_PROGRAMS) if implementation == "auto" else find(implementation, problem)


@recomputing_pyramid_attention.register_fake
def _fake(query, keys, scales, values, ksize, hard, implementation, window, frame, products="auto", training=False):
    batch, _, height, width = query.shape
    kept = patches_shape(query, values) if implementation == "triton" and training else (0,)
    return (
        query.new_empty(batch, values[0].shape[1], height, width),
        query.new_empty(batch, height, width),
        query.new_empty((), dtype=torch.uint8),
        query.new_empty(kept),
    )


@_backward.register_fake
def _(grad, query, keys, scales, values, *_):
    return [x.new_empty(x.shape) for x in (query, *keys, *scales, *values)]


def _save(ctx, inputs, output) -> None:
    query, keys, scales, values, *ctx.options = inputs
    ctx.save_for_backward(query, *keys, *scales, *values, *output[1:])


def _differentiate(ctx, grad, *_):
    query, *levels, normalizer, setting, patches = ctx.saved_tensors
    count = len(levels) // 3
    keys, scales, values = (levels[i : i + count] for i in (0, count, 2 * count))
    d_query, *d_levels = _backward(grad, query, keys, scales, values, normalizer, setting, patches, *ctx.options)
    d_keys, d_scales, d_values = (d_levels[i : i + count] for i in (0, count, 2 * count))
    # As many as there were inputs: PyTorch before 2.5 omits those that equal their defaults.
    d_options: list = [None] * (len(ctx.needs_input_grad) - 4)
    if not ctx.options[4]:
        d_options[4] = []  # autograd treats an empty list as a list of tensors.
    return d_query, d_keys, d_scales, d_values, *d_options


def _refuse(ctx, grads):
    raise RuntimeError("second derivatives of pyramid attention require implementation='dense'")


recomputing_pyramid_attention.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)
