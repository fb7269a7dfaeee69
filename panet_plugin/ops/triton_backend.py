"""Pyramid attention by Triton kernels for CUDA: 3x3 patches, soft matching, float32; no autograd inside."""

import importlib.util
import math
import os
from collections.abc import Sequence

from torch import Tensor

from panet_plugin.ops.problem import Gradients, Problem, Saved

name = "triton"


def why_not(problem: Problem) -> str | None:
    """Return why it cannot do what is asked, if so."""
    if not (problem.query.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return f"it needs CUDA tensors, got {problem.query.device}"
    if reason := problem.why_not_published():
        return f"it does {reason}"
    return None if importlib.util.find_spec("triton") else "Triton is not installed"


def patches_shape(query: Tensor, values: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the shape of the patches that are kept for the backward pass."""
    return len(query), math.prod(query.shape[-2:]), 9, math.ceil(values[0].shape[1] / 16) * 16


def forward(problem: Problem) -> tuple[Tensor, Saved]:
    """Compute pyramid attention ``(N, D, H, W)`` in memory linear in the pixels, and what its backward pass needs."""
    from panet_plugin.ops import triton_kernels

    output, log_sums = triton_kernels.forward(
        problem.query, problem.keys, problem.scales, problem.values, problem.visible
    )
    return output, Saved(log_sums, problem.query.new_zeros(patches_shape(problem.query, problem.values)))


def backward(grad: Tensor, problem: Problem, saved: Saved) -> Gradients:
    """Return the gradients, computing the scores again."""
    from panet_plugin.ops import triton_kernels

    return triton_kernels.backward(
        grad, problem.query, problem.keys, problem.scales, problem.values, saved.normalizer, problem.visible
    )
