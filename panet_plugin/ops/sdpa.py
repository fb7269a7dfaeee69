"""Pyramid attention by PyTorch's own attention, between unfolded patches: soft matching.

On CUDA, PyTorch has kernels for it that store no scores; with a window they are given a mask, which is as large as the
scores of one image. On a CPU, where keys and values have to be of one width for these, it stores all scores.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.dense import paste, scaled_keys, seen_matrix
from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import unfold_patches

name = "sdpa"


def why_not(problem: Problem) -> str | None:
    """Return why it cannot do what is asked, if so."""
    return "it does hard=False only" if problem.hard else None


def forward(problem: Problem) -> Tensor:
    """Compute pyramid attention ``(N, D, H, W)``, for autograd to differentiate."""
    values = torch.cat([unfold_patches(value, problem.ksize) for value in problem.values], dim=-1)
    # Heads of one: (N, 1, pixels, channels).
    query, keys, values = (
        patches.transpose(1, 2)[:, None]
        for patches in (unfold_patches(problem.query, problem.ksize), scaled_keys(problem), values)
    )
    patches = F.scaled_dot_product_attention(query, keys, values, seen_matrix(problem), scale=1.0)
    return paste(patches[:, 0].transpose(1, 2), problem)
