"""The x8 self-ensemble."""

from collections.abc import Callable
from itertools import product

from torch import Tensor


def self_ensemble(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the mean of the eight results over flips and transposition, which are undone before averaging.

    Args:
        run: Restores ``(N, C, h, w)``, of any size.
        images: ``(N, C, H, W)``.

    Returns:
        As ``run``.
    """
    total = None
    for transposed, *flipped in product((False, True), repeat=3):
        axes = [axis for axis, chosen in zip((-2, -1), flipped, strict=True) if chosen]
        seen = (images.transpose(-2, -1) if transposed else images).flip(axes)
        restored = run(seen).flip(axes)
        restored = restored.transpose(-2, -1) if transposed else restored
        total = restored if total is None else total + restored
    return total / 8
