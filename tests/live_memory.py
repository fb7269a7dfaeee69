"""How much memory tensors take while operations run."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Memory(TorchDispatchMode):
    """Adds up the bytes of all tensors that operations have made and that still exist."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and (storage := leaf.untyped_storage()) not in self.known:
                self.known.add(storage)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def forget(self, size):
        self.live -= size
