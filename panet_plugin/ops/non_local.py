"""Non-local attention whose weights are normalized over the queries: exact, in blocks of keys."""

from collections.abc import Iterator

import torch
from torch import Tensor

from panet_plugin.ops.autocast import without_autocast
from panet_plugin.ops.exporting import current_loop
from panet_plugin.ops.portable import portable_non_local_attention

#: Maximum number of scores in a block of several keys: 16 MB in float32. About three such matrices exist at a time.
MAX_SCORES = 2**22


def non_local_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Sum the values weighted by a softmax over the **queries**, as in the published RNAN.

    ``out[p] = sum_l v[l] exp(q[p] . k[l]) / sum_m exp(q[m] . k[l])`` for query pixels p, m and key pixels l: the
    weights of a value sum to one, but not those of a query. The weights of a key do not depend on other keys, so that
    blocks of keys give exact partial sums. The backward pass computes every block again: memory is linear in the
    pixels.

    Args:
        query: ``(N, C, H, W)``.
        key: ``(N, C, h, w)``.
        value: ``(N, D, h, w)``.

    Returns:
        ``(N, D, H, W)``. Half precision is computed in float32.

    Raises:
        ValueError: If the shapes do not match.
        RuntimeError: On second derivatives.
    """
    if query.ndim != 4 or key.ndim != 4 or key.shape[:2] != query.shape[:2]:
        raise ValueError(f"query and key must be (N, C, H, W), got shapes {tuple(query.shape)} and {tuple(key.shape)}")
    if value.ndim != 4 or value.shape[0] != key.shape[0] or value.shape[2:] != key.shape[2:]:
        raise ValueError(f"value must be ({key.shape[0]}, D) + {tuple(key.shape[2:])}, got shape {tuple(value.shape)}")
    dtype, size = query.dtype, query.shape[-2:]
    # The scores are sums of unbounded products and arguments of an exponential.
    with without_autocast(query.device):
        if dtype in (torch.float16, torch.bfloat16):
            query, key, value = query.float(), key.float(), value.float()
        if current_loop() is not None:
            return portable_non_local_attention(query, key, value).to(dtype)
        output = _attend(query.flatten(2), key.flatten(2), value.flatten(2))
        return output.unflatten(2, size).to(dtype)


def forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend within pixels flattened to the last dimension; see :func:`non_local_attention`."""
    output = query.new_zeros(query.shape[0], value.shape[1], query.shape[2])
    with without_autocast(query.device):
        for keys in _blocks(query, key):
            output.baddbmm_(value[..., keys], _weights(query, key[..., keys]))
    return output


def backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of ``query``, ``key`` and ``value``, computing the weights again."""
    d_query, d_key, d_value = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (query, key, value))
    # Unlike the forward pass, this may run with autocast enabled.
    with without_autocast(query.device):
        for keys in _blocks(query, key):
            weights = _weights(query, key[..., keys])
            d_value[..., keys] = grad @ weights.transpose(1, 2)
            # Through the softmax: weight * (slope - mean), with the mean over all queries.
            slope = (value[..., keys].transpose(1, 2) @ grad).mul_(weights)
            slope.addcmul_(weights, slope.sum(-1, keepdim=True), value=-1)
            d_query.baddbmm_(key[..., keys], slope)
            d_key[..., keys] = query @ slope.transpose(1, 2)
    return d_query, d_key, d_value


# Operators, since compilers would unroll the loops and make a program for every number of blocks.
_attend = torch.library.custom_op("panet_plugin::non_local_attention", forward, mutates_args=())
_backward = torch.library.custom_op("panet_plugin::non_local_attention_backward", backward, mutates_args=())


@_attend.register_fake
def _(query, key, value):
    return query.new_empty(query.shape[0], value.shape[1], query.shape[2])


@_backward.register_fake
def _(grad, query, key, value):
    return tuple(x.new_empty(x.shape) for x in (query, key, value))


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad):
    return _backward(grad, *ctx.saved_tensors)


def _refuse(ctx, *grads):
    raise RuntimeError("non-local attention has no second derivatives")


_attend.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)


def _blocks(query: Tensor, key: Tensor) -> Iterator[slice]:
    """Yield blocks of keys of which all scores fit."""
    size = max(1, MAX_SCORES // (query.shape[0] * query.shape[2]))
    for start in range(0, key.shape[2], size):
        yield slice(start, start + size)


def _weights(query: Tensor, key: Tensor) -> Tensor:
    """Return ``(N, keys, queries)``, normalized over the queries."""
    return (key.transpose(1, 2) @ query).softmax(-1)
