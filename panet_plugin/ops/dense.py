"""The reference implementation: every patch unfolded, every score stored."""

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import one_hot_of_maxima, overlap_divisor, unfold_patches
from panet_plugin.ops.window import seen_keys

name = "dense"


def why_not(problem: Problem) -> str | None:
    """Return None: every problem is supported."""
    return None


def forward(problem: Problem) -> Tensor:
    """Compute pyramid attention ``(N, D, H, W)`` with one ``(N, H*W, keys)`` matrix, for autograd to differentiate."""
    patches = torch.cat([unfold_patches(value, problem.ksize) for value in problem.values], dim=-1)
    return paste(patches @ attention_weights(problem).transpose(1, 2), problem)


def attention_weights(problem: Problem) -> Tensor:
    """Compute the whole attention matrix ``(N, H*W, keys)``, the keys of all levels one after another."""
    scores = unfold_patches(problem.query, problem.ksize).transpose(1, 2) @ scaled_keys(problem)
    seen = seen_matrix(problem)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return one_hot_of_maxima(scores) if problem.hard else scores.softmax(-1)


def scaled_keys(problem: Problem) -> Tensor:
    """Return the patches of the keys of all levels, times their scales: ``(N, C * ksize**2, keys)``."""
    levels = zip(problem.keys, problem.scales, strict=True)
    return torch.cat([unfold_patches(key, problem.ksize) * scale.flatten(2) for key, scale in levels], dim=-1)


def seen_matrix(problem: Problem) -> Tensor | None:
    """Return whether a query sees a key, ``(H*W, keys)``; None without a window."""
    visible = problem.visible_on(problem.query.device)
    if visible is None:
        return None
    return torch.cat([seen_keys(seen, size) for seen, size in zip(visible, problem.sizes, strict=True)], dim=-1)


def paste(patches: Tensor, problem: Problem) -> Tensor:
    """Sum overlapping patches ``(N, D * ksize**2, H*W)`` to the output."""
    return F.fold(patches, problem.size, problem.ksize, padding=problem.ksize // 2) / overlap_divisor(problem.ksize)
