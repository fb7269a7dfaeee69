"""Random inputs of pyramid attention for the tests, as float64 leaves."""

from collections.abc import Sequence

import torch

from panet_plugin.ops.pyramid import ladder, level_size


def make_inputs(
    size: tuple[int, int] = (9, 7),
    scales: int | Sequence[float] = 3,
    *,
    batch: int = 1,
    channels: int = 3,
    depth: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = [level_size(*size, scale) for scale in (ladder(scales) if isinstance(scales, int) else scales)]

    def draw(planes: int, height: int, width: int) -> torch.Tensor:
        image = torch.randn(batch, planes, height, width, generator=generator, dtype=torch.float64)
        return image.to(dtype).requires_grad_()

    return draw(channels, *size), [draw(channels, *s) for s in sizes], [draw(depth, *s) for s in sizes]


def leaves(query: torch.Tensor, keys: list[torch.Tensor], values: list[torch.Tensor]) -> list[torch.Tensor]:
    return [query, *keys, *values]


def gradients(output: torch.Tensor, inputs: Sequence[torch.Tensor], seed: int = 1) -> list[torch.Tensor | None]:
    cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.autograd.grad(output, inputs, cotangent.to(output.dtype), allow_unused=True)
