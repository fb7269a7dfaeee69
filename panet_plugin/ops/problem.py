"""What every implementation of pyramid attention is asked to compute, and what it keeps for the backward pass."""

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
        query: ``(N, C, H, W)``, as all of the following in float32 or float64, of any layout.
        keys: ``(N, C, h, w)`` per level.
        scales: ``(N, 1, h, w)`` per level, from :func:`~panet_plugin.ops.pyramid.key_scale`.
        values: ``(N, D, h, w)`` per level.
        ksize: Side of a patch in pixels, odd.
        hard: Paste only the best matches.
        window: Side of the square of keys that a query sees, in pixels; None for all keys.
        frame: With a window, where parts of larger maps lie in these; see
            :func:`~panet_plugin.ops.window.visible_keys`.
        products: What operands of products may be rounded to by kernels of ours: ``"ieee"`` for nothing, ``"tf32"`` or
            ``"bf16"``; see :func:`~panet_plugin.ops.precision.float32_products`.
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
        """How many scores there are of all queries and keys, seen or not."""
        return self.query.shape[0] * math.prod(self.size) * sum(map(math.prod, self.sizes))

    @cached_property
    def visible(self) -> list[Visible] | None:
        """What each query sees of every level, on the CPU; None where that is everything."""
        return self.visible_on(torch.device("cpu"))

    def visible_on(self, device: torch.device) -> list[Visible] | None:
        """Return :attr:`visible` on a device, computed there: nothing is copied."""
        if self.window is None:
            return None
        # A size may be a number of the program that is being exported, of which nothing is known.
        if current_loop() is None and not self.frame and self.window >= max(self.size):
            return None
        return visible_keys(self.window, self.size, self.sizes, self.frame, device)

    def why_not_published(self) -> str | None:
        """Return why the problem is none of the published network's, which is all that kernels do, if so."""
        if self.ksize == 3 and not self.hard and self.query.dtype == torch.float32:
            return None
        return f"float32, ksize 3, hard=False only; got {self.query.dtype}, ksize {self.ksize}, hard={self.hard}"


class Saved(NamedTuple):
    """What a backward pass needs of the forward pass besides the problem.

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
