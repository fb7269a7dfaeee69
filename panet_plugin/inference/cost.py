"""What restoring will cost, from running the network on small images: time and memory over the pixels."""

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

#: Measuring goes on to larger images until one takes so many seconds, since the next may take 16 times as long, or
#: until they have such a side.
ENOUGH_SECONDS = 0.06
LARGEST_SIDE = 256

#: What a network takes over the tensors that it makes, for the libraries' own scratch memory: measured.
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
        """Return how long one image takes."""
        return self.time[0] * pixels + self.time[1] * pixels**2

    def memory(self, pixels: int) -> float:
        """Return how many bytes one image takes."""
        return self.space[0] * pixels + self.space[1] * pixels**2


def measure(run: Callable[[Tensor], Tensor], channels: int, multiple: int = 1, linear_from: int | None = None) -> Cost:
    """Run a network on small images of growing size and fit its cost to the largest three of them.

    Memory is that of the tensors that are alive together, and :data:`SCRATCH`.

    Args:
        run: Takes ``(1, channels, h, w)``; returns when it is done.
        channels: Channels of the images.
        multiple: The sides must be multiples of it.
        linear_from: Of images with such a side and larger ones, the cost is known to be linear in the pixels.
    """
    pixels: list[int] = []
    seconds: list[float] = []
    memory: list[int] = []
    side = min(linear_from or 16, LARGEST_SIDE)
    while side <= LARGEST_SIDE and not (len(pixels) > 1 and seconds[-1] > ENOUGH_SECONDS):
        rounded = -(-side // multiple) * multiple
        image = torch.full((1, channels, rounded, rounded), 0.5)
        # First runs prepare what later ones reuse, and must not be timed.
        with PeakMemory() as peak:
            run(image)
        taken = _timed(run, image)
        # The better of two, since other programs interrupt; a long one shows that it is enough.
        seconds.append(taken if taken > ENOUGH_SECONDS else min(taken, _timed(run, image)))
        memory.append(int(SCRATCH * peak.most))
        pixels.append(rounded**2)
        side = rounded * 2
        if linear_from:
            break
    return Cost(_fit(pixels, seconds), _fit(pixels, memory))


def _timed(run: Callable[[Tensor], Tensor], image: Tensor) -> float:
    begin = time.perf_counter()
    run(image)
    return time.perf_counter() - begin


def _fit(pixels: Sequence[int], values: Sequence[float]) -> tuple[float, float]:
    """Return a, b >= 0 with the least relative error of a * pixels + b * pixels ** 2 over the last three values.

    What grows with the pixels but for a tenth is taken to do so: the levels of small pyramids are rounded to whole
    pixels, which must not be mistaken for growth.
    """
    p, v = np.array(pixels[-3:], float), np.maximum(np.array(values[-3:], float), 1e-9)
    if (v / p).max() <= 1.1 * (v / p).min():
        return float((v / p).max()), 0.0
    coefficients, _ = nnls(np.stack([p / v, p**2 / v], axis=1), np.ones(len(v)))
    return float(coefficients[0]), float(coefficients[1])


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors that are made inside and alive at the same time.

    Attributes:
        most: The most bytes that there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count what it made."""
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
    """Return the bytes that a device has free, on Apple's GPUs those that it should not exceed."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return available_memory()
