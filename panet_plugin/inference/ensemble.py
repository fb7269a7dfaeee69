"""The x8 self-ensemble."""

import operator
from collections.abc import Callable
from functools import reduce
from itertools import product, starmap

from torch import Tensor


def self_ensemble(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the mean of the eight results over flips and transposition, which are undone before averaging.

    Args:
        run: Restores ``(N, C, h, w)``, of any size.
        images: ``(N, C, H, W)``.

    Returns:
        As ``run``.
    """

    def restored(transposed: bool, *flipped: bool) -> Tensor:
        axes = [axis for axis, chosen in zip((-2, -1), flipped, strict=True) if chosen]
        seen = (images.transpose(-2, -1) if transposed else images).flip(axes)
        result = run(seen).flip(axes)
        return result.transpose(-2, -1) if transposed else result

    return reduce(operator.add, starmap(restored, product((False, True), repeat=3))) / 8
