"""PReLU with a single slope and a fast gradient on CPUs, where PyTorch's is not vectorized."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PReLU(nn.PReLU):
    """PyTorch's PReLU with one slope for all channels, with a gradient that is several times faster on CPUs.

    The values are the same; the slope's gradient is summed in float32 or float64. PyTorch's own operator is used when
    compiling or exporting, and for second derivatives.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``max(x, 0) + slope * min(x, 0)`` of any shape."""
        plain = torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.is_grad_enabled()
        if plain or x.device.type != "cpu":
            return super().forward(x)
        return _OneSlope.apply(x, self.weight)


class _OneSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.leaky_relu(x, slope.item())

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, slope = ctx.saved_tensors
        of_x = of_slope = None
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.aten.leaky_relu_backward(gradient, x, slope.item(), False)
        if ctx.needs_input_grad[1]:
            dtype = torch.promote_types(x.dtype, torch.float32)
            of_slope = (gradient * x.clamp(max=0)).sum(dtype=dtype).to(slope.dtype).reshape(slope.shape)
        return of_x, of_slope
