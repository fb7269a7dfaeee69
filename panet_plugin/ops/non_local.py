"""Non-local attention whose weights are normalised over the queries: exact, in blocks of keys."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from panet_plugin.ops.custom_op import without_autocast

#: Most scores that exist at one time, as long as one key's fit: 16 MB in float32.
MAX_SCORES = 2**22


def non_local_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Sum the values, weighted by a softmax over the **queries**, as the published RNAN does.

    ``out[p] = sum_l v[l] exp(q[p] . k[l]) / sum_m exp(q[m] . k[l])`` for query pixels p, m and key pixels l: what a
    value gives away adds up to one, what a query receives does not. A key's weights need no other key, so blocks of
    keys give exact partial sums. With gradients, every block is computed again in the backward pass. Memory grows
    linearly with the pixels.

    Args:
        query: ``(N, C, H, W)``.
        key: ``(N, C, h, w)``.
        value: ``(N, D, h, w)``.

    Returns:
        ``(N, D, H, W)``. Half precision is computed in float32.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if query.ndim != 4 or key.ndim != 4 or key.shape[:2] != query.shape[:2]:
        raise ValueError(f"query and key must be (N, C, H, W), got shapes {tuple(query.shape)} and {tuple(key.shape)}")
    if value.ndim != 4 or value.shape[0] != key.shape[0] or value.shape[2:] != key.shape[2:]:
        raise ValueError(f"value must be ({key.shape[0]}, D) + {tuple(key.shape[2:])}, got shape {tuple(value.shape)}")
    dtype, size = query.dtype, query.shape[-2:]
    # The scores are sums of unbounded products and go into an exponential.
    with without_autocast(query.device):
        if dtype in (torch.float16, torch.bfloat16):
            query, key, value = query.float(), key.float(), value.float()
        query, key, value = query.flatten(2), key.flatten(2), value.flatten(2)
        block = max(1, MAX_SCORES // (query.shape[0] * query.shape[2]))
        keys, values = key.split(block, 2), value.split(block, 2)
        recompute = torch.is_grad_enabled() and len(keys) > 1
        output = None
        for some in zip(keys, values, strict=True):
            if recompute:
                part = checkpoint(_attend, query, *some, use_reentrant=False, preserve_rng_state=False)
            else:
                part = _attend(query, *some)
            output = part if output is None else output + part
        return output.unflatten(2, size).to(dtype)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the share of some keys; pixels are flattened to one dimension, the last."""
    weights = (key.transpose(1, 2) @ query).softmax(-1)
    return value @ weights
