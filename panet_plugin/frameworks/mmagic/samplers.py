"""A sampler of MMEngine for sets that are larger than memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS

from panet_plugin.data import sequential_order


@DATA_SAMPLERS.register_module()
class SequentialSampler(InfiniteSampler):
    """``InfiniteSampler`` that reads the disk sequentially; see :func:`~panet_plugin.data.sequential_order`.

    Args:
        dataset: A dataset of this package with LMDBs.
        buffer: Number of images shuffled at a time, per process.
        shuffle: False for the order of the names.
        seed: The same in all processes; random by default.

    Raises:
        ValueError: If ``buffer`` is below 1, or the dataset is not supported or a subset.
    """

    def __init__(self, dataset: Any, buffer: int, shuffle: bool = True, seed: int | None = None) -> None:
        super().__init__(dataset, shuffle, seed)
        self.shards: Any = getattr(getattr(dataset, "images", None), "shards", ())
        self.buffer = buffer
        if len(self.shards) != len(dataset):
            raise ValueError(
                "SequentialSampler: expected a whole PairedLMDBDataset or CleanImageDataset, "
                f"got {type(dataset).__name__} of {len(dataset)} images"
            )
        sequential_order(self.shards[:1], buffer, np.random.default_rng())  # for its errors

    def _infinite_indices(self) -> Iterator[int]:
        if not self.shuffle:
            yield from super()._infinite_indices()
        rng = np.random.default_rng(self.seed)
        while True:
            yield from sequential_order(self.shards, self.buffer, rng, self.world_size).tolist()
