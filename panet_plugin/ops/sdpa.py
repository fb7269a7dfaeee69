"""Pyramid attention by PyTorch's attention between unfolded patches, for soft matching.

On CUDA, PyTorch has kernels that do not store scores; with a window they need a mask, which is as large as the scores
of one image. On CPUs, where its kernels require keys and values of the same width, all scores are stored.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.dense import paste, scaled_keys, seen_matrix
from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import unfold_patches

name = "sdpa"


def why_not(problem: Problem) -> str | None:
    """Return why the problem is unsupported, or None."""
    return "it supports only hard=False" if problem.hard else None


def forward(problem: Problem) -> Tensor:
    """Compute pyramid attention ``(N, D, H, W)``, for autograd to differentiate."""
    values = torch.cat([unfold_patches(value, problem.ksize) for value in problem.values], dim=-1)
    # A single head: (N, 1, pixels, channels).
    query, keys, values = (
        patches.transpose(1, 2)[:, None]
        for patches in (unfold_patches(problem.query, problem.ksize), scaled_keys(problem), values)
    )
    patches = F.scaled_dot_product_attention(query, keys, values, seen_matrix(problem), scale=1.0)
    return paste(patches[:, 0].transpose(1, 2), problem)
