"""A sampler for MMEngine's loaders of sets that are larger than the memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS

from panet_plugin.data import sequential_order


@DATA_SAMPLERS.register_module()
class SequentialSampler(InfiniteSampler):
    """``InfiniteSampler`` that reads the disk in sequence; see :func:`~panet_plugin.data.sequential_order`.

    Args:
        dataset: One of ours, of LMDBs.
        buffer: Images that are shuffled at a time, in every process.
        shuffle: False gives the order of the names.
        seed: The same in all processes; drawn if it is not given.

    Raises:
        ValueError: If ``buffer`` is below 1, or the dataset is another one or a part of one.
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
        sequential_order(self.shards[:1], buffer, np.random.default_rng())  # for its error

    def _infinite_indices(self) -> Iterator[int]:
        if not self.shuffle:
            yield from super()._infinite_indices()
        rng = np.random.default_rng(self.seed)
        while True:
            yield from sequential_order(self.shards, self.buffer, rng, self.world_size).tolist()
