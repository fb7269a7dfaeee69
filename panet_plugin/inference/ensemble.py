"""The x8 self-ensemble."""

from collections.abc import Callable
from functools import reduce
from itertools import product, starmap

from torch import Tensor

from panet_plugin.ops.part import current_part, part_of_whole


def self_ensemble(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the mean of the results for eight flips and transpositions, which are undone before averaging.

    Args:
        run: Restores ``(N, C, h, w)``, of any size.
        images: ``(N, C, H, W)``, the whole or the current part of it.

    Returns:
        As ``run``.
    """
    part = current_part()

    def restored(transposed: bool, *flipped: bool) -> Tensor:
        axes = [axis for axis, chosen in zip((-2, -1), flipped, strict=True) if chosen]
        seen = (images.transpose(-2, -1) if transposed else images).flip(axes)
        with part_of_whole(part and part.turned(transposed, axes)):
            result = run(seen).flip(axes)
        return result.transpose(-2, -1) if transposed else result

    # In place, since results may be large.
    return reduce(Tensor.add_, starmap(restored, product((False, True), repeat=3))).div_(8)
