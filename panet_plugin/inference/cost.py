"""Estimating time and memory by running the network on small images."""

import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from panet_plugin.memory import available_memory

#: Measurement stops at an image that takes this many seconds, since the next may take 16 times as long, or that has
#: sides of this length.
ENOUGH_SECONDS = 0.06
LARGEST_SIDE = 256

#: Ratio of a network's memory to that of its tensors, because of the libraries' scratch memory: measured.
SCRATCH = 1.5


class Cost(NamedTuple):
    """Time and memory of the network as a * pixels + b * pixels ** 2, for one image.

    Attributes:
        time: (a, b) in seconds.
        space: (a, b) in bytes.
    """

    time: tuple[float, float]
    space: tuple[float, float]

    def seconds(self, pixels: int) -> float:
        """Return the time for one image."""
        return self.time[0] * pixels + self.time[1] * pixels**2

    def memory(self, pixels: int) -> float:
        """Return the memory for one image, in bytes."""
        return self.space[0] * pixels + self.space[1] * pixels**2


def measure(
    run: Callable[[Tensor], Tensor],
    channels: int,
    multiple: int = 1,
    linear_from: int | None = None,
    local: bool = False,
) -> Cost:
    """Run a network on small images of increasing size and fit its cost to the largest three.

    Memory is the peak of live tensors times :data:`SCRATCH`.

    Args:
        run: Takes ``(1, channels, h, w)``; must be synchronous.
        channels: Channels of the images.
        multiple: The sides must be multiples of it.
        linear_from: Side of images from which on the cost is known to be linear in the pixels.
        local: Whether the network has no attention whose time grows faster than its memory. If its memory is linear,
            so is its time, which noise must not turn into a quadratic one.
    """
    pixels: list[int] = []
    seconds: list[float] = []
    memory: list[int] = []
    side = min(linear_from or 16, LARGEST_SIDE)
    while side <= LARGEST_SIDE and not (len(pixels) > 1 and seconds[-1] > ENOUGH_SECONDS):
        rounded = -(-side // multiple) * multiple
        image = torch.full((1, channels, rounded, rounded), 0.5)
        # The first run includes one-time initialization and must not be timed.
        with PeakMemory() as peak:
            run(image)
        taken = _timed(run, image)
        # The better of two, since other programs interfere; a single long run is enough.
        seconds.append(taken if taken > ENOUGH_SECONDS else min(taken, _timed(run, image)))
        memory.append(int(SCRATCH * peak.most))
        pixels.append(rounded**2)
        side = rounded * 2
        if linear_from:
            break
    space = _fit(pixels, memory)
    linear = local and not space[1]
    spent = (seconds[-1] / pixels[-1], 0.0) if linear else _fit(pixels, seconds)
    return Cost(spent, space)


def _timed(run: Callable[[Tensor], Tensor], image: Tensor) -> float:
    begin = time.perf_counter()
    run(image)
    return time.perf_counter() - begin


def _fit(pixels: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Return a, b >= 0 that minimize the relative error of a * pixels + b * pixels ** 2 over the last three values.

    Values that are linear to within a tenth count as linear: the levels of small pyramids are rounded to whole pixels,
    which must not be mistaken for quadratic growth.
    """
    p, v = np.array(pixels[-3:], float), np.maximum(np.array(values[-3:], float), 1e-9)
    if (v / p).max() <= 1.1 * (v / p).min():
        return float((v / p).max()), 0.0
    coefficients, _ = nnls(np.stack([p / v, p**2 / v], axis=1), np.ones(len(v)))
    return float(coefficients[0]), float(coefficients[1])


class PeakMemory(TorchDispatchMode):
    """Tracks the peak memory of tensors created inside the context.

    Attributes:
        most: Peak in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count its outputs."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self._now += size
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes; on Apple's GPUs, what remains of the recommended maximum."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return available_memory()
