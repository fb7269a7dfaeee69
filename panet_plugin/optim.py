"""Muon: momentum with orthogonalized matrices, for convolutions and linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

#: Coefficients and iterations of the quintic that drives singular values toward 1 (Jordan et al., 2024).
_COEFFICIENTS, _ROUNDS = (3.4445, -4.7750, 2.0315), 5


class MuonAdam(Optimizer):
    """Muon (Jordan et al., 2024) for large matrices, and Adam for all other parameters.

    The weights of a convolution form a matrix with a row per output channel. Both kinds of steps have the same
    magnitude, so that a learning rate for Adam can be used (Liu et al., 2025, "Muon is scalable for LLM training").

    Args:
        params: Parameters or groups of them.
        lr: Learning rate of both.
        momentum: Nesterov momentum of the matrices.
        betas: Adam's betas.
        eps: Adam's epsilon.
        smallest: Minimum input and output channels of weights that are treated as matrices: layers that read or write
            images have fewer.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        smallest: int = 16,
    ) -> None:
        if lr < 0 or eps <= 0 or smallest < 1:
            raise ValueError(f"lr must be at least 0, eps above 0 and smallest at least 1, got {lr}, {eps}, {smallest}")
        if not all(0 <= factor < 1 for factor in (momentum, *betas)):
            raise ValueError(f"momentum and betas must be in [0, 1), got {momentum} and {betas}")
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "betas": tuple(betas), "eps": eps, "smallest": smallest}
        )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; parameters without a gradient are not changed."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if (gradient := parameter.grad) is None:
                    continue
                if parameter.ndim > 1 and min(parameter.shape[:2]) >= group["smallest"]:
                    key = (parameter.shape[0], parameter[0].numel(), parameter.dtype, parameter.device)
                    alike.setdefault(key, []).append((parameter, gradient))
                else:
                    self._adam(parameter, group)
            for pairs in alike.values():
                self._muon(pairs, group)
        return loss

    def _muon(self, pairs: Sequence[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """Take a step with all matrices of one size and their gradients at once."""
        directions = []
        for parameter, gradient in pairs:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            directions.append(gradient.lerp(average, group["momentum"]).flatten(1))
        steps = orthogonalize(torch.stack(directions))
        # Adam's steps have a root mean square of about 0.2; an orthogonal matrix has that of one over its longer side.
        size = group["lr"] * 0.2 * max(steps.shape[1:]) ** 0.5
        for (parameter, _), step in zip(pairs, steps, strict=True):
            parameter.sub_(step.reshape(parameter.shape), alpha=size)

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        mean = state["mean"].lerp_(parameter.grad, 1 - beta1)
        square = state["square"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
        deviation = (square / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        parameter.addcdiv_(mean, deviation, value=-group["lr"] / (1 - beta1 ** state["step"]))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices with approximately the same singular vectors, and singular values between 0.6 and 1.3.

    Singular values below a thousandth of the largest may become smaller.

    Args:
        matrices: ``(N, rows, columns)``, float32 or float64.

    Returns:
        The same shape.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT).mT
    a, b, c = _COEFFICIENTS
    # The Frobenius norm bounds the largest singular value.
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(matrices.dtype).tiny)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
