"""The input of every implementation of pyramid attention, and the values that it saves for the backward pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from panet_plugin.ops.exporting import current_loop
from panet_plugin.ops.window import Visible, visible_keys


@dataclass(eq=False)
class Problem:
    """Pyramid attention of a batch of images.

    Attributes:
        query: ``(N, C, H, W)``. All tensors are float32 or float64 with any strides.
        keys: ``(N, C, h, w)`` for every level.
        scales: ``(N, 1, h, w)`` for every level, from :func:`~panet_plugin.ops.pyramid.key_scale`.
        values: ``(N, D, h, w)`` for every level.
        ksize: Side of a patch in pixels, odd.
        hard: Paste only the best matches.
        window: Side of the square of keys that a query sees, in pixels; None for all keys.
        frame: With a window, the positions of parts in larger maps; see
            :func:`~panet_plugin.ops.window.visible_keys`.
        products: Precision to which this package's kernels may round operands of products: ``"ieee"`` (no rounding),
            ``"tf32"`` or ``"bf16"``; see :func:`~panet_plugin.ops.precision.float32_products`.
        training: Whether a backward pass may follow.
    """

    query: Tensor
    keys: Sequence[Tensor]
    scales: Sequence[Tensor]
    values: Sequence[Tensor]
    ksize: int = 3
    hard: bool = False
    window: int | None = None
    frame: Sequence[int] = ()
    products: str = "ieee"
    training: bool = False

    @property
    def size(self) -> torch.Size:
        """Height and width of the query."""
        return self.query.shape[-2:]

    @property
    def sizes(self) -> list[torch.Size]:
        """Height and width of every level."""
        return [key.shape[-2:] for key in self.keys]

    @property
    def scores(self) -> int:
        """Number of scores of all queries and keys, inside the window or not."""
        return self.query.shape[0] * math.prod(self.size) * sum(map(math.prod, self.sizes))

    @cached_property
    def visible(self) -> list[Visible] | None:
        """The keys of every level that each query sees, on the CPU; None if that is all."""
        return self.visible_on(torch.device("cpu"))

    def visible_on(self, device: torch.device) -> list[Visible] | None:
        """Return :attr:`visible` on a device, computed there without copies."""
        if self.window is None:
            return None
        # A size may be a value of the program being exported, which is unknown.
        if current_loop() is None and not self.frame and self.window >= max(self.size):
            return None
        return visible_keys(self.window, self.size, self.sizes, self.frame, device)

    def why_not_published(self) -> str | None:
        """Return why the kernels, which support only the settings of the published network, cannot be used, or None."""
        if self.ksize == 3 and not self.hard and self.query.dtype == torch.float32:
            return None
        return f"only float32, ksize 3, hard=False; got {self.query.dtype}, ksize {self.ksize}, hard={self.hard}"


class Saved(NamedTuple):
    """The values of a forward pass that its backward pass needs, in addition to the problem.

    Attributes:
        normalizer: ``(N, H, W)``: for every query the logarithm to base 2 of the softmax's denominator, or if the
            matching is hard, the largest score.
        patches: What was pasted around every query, ``(N, H * W, 9, D)`` with more channels, of zeros, where the
            implementation keeps it and needs these.
    """

    normalizer: Tensor
    patches: Tensor | None = None


#: Gradients of the query, and per level of keys, scales and values.
Gradients = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]
