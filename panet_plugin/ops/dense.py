"""The reference implementation: every patch unfolded, every score stored."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.pyramid import key_scale, one_hot_of_maxima, overlap_divisor, unfold_patches
from panet_plugin.ops.window import Visible, seen_keys


def dense_weights(
    query: Tensor,
    keys: Sequence[Tensor],
    softmax_scale: float,
    ksize: int,
    hard: bool,
    visible: Sequence[Visible] | None = None,
) -> Tensor:
    """Compute the whole attention matrix ``(N, H*W, keys)``, the keys of all levels one after another."""
    queries = unfold_patches(query, ksize).transpose(1, 2)
    levels = [queries @ (unfold_patches(key, ksize) * key_scale(key, softmax_scale, ksize).flatten(2)) for key in keys]
    if visible is not None:
        levels = [
            scores.masked_fill(~seen_keys(seen, key.shape[-2:]).to(key.device), -torch.inf)
            for scores, seen, key in zip(levels, visible, keys, strict=True)
        ]
    scores = torch.cat(levels, dim=-1)
    return one_hot_of_maxima(scores) if hard else scores.softmax(-1)


def dense_pyramid_attention(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    softmax_scale: float,
    ksize: int,
    hard: bool,
    visible: Sequence[Visible] | None = None,
) -> Tensor:
    """Compute pyramid attention with one ``(N, H*W, keys)`` matrix; see :func:`~panet_plugin.ops.pyramid_attention`."""
    weights = dense_weights(query, keys, softmax_scale, ksize, hard, visible)
    patches = torch.cat([unfold_patches(value, ksize) for value in values], dim=-1)
    pasted = F.fold(patches @ weights.transpose(1, 2), query.shape[-2:], ksize, padding=ksize // 2)
    return pasted / overlap_divisor(ksize)
