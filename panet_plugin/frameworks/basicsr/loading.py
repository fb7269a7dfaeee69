"""Training data for BasicSR's trainer that can be resumed at any sample: a sample depends only on its number."""

import itertools
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import basicsr.train
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from panet_plugin.data import sequential_order
from panet_plugin.frameworks.configs import ConfigError


@contextmanager
def numbered_samples(seed: int, iteration: int = 0, epoch: int = 0) -> Iterator[None]:
    """Temporarily make BasicSR's trainer load a :class:`SampleStream` instead of epochs.

    Its own epochs are shuffled by their number and give every worker the same random numbers again, so that training
    cannot be resumed within one.

    Args:
        seed: Seed of the order of the images and of all random values of the samples.
        iteration: Iteration at which training continues.
        epoch: The trainer's epoch at that iteration, which is now the only one.
    """
    before = {
        name: getattr(basicsr.train, name)
        for name in ("EnlargedSampler", "build_dataset", "create_train_val_dataloader")
    }

    def sampler(dataset: Any, world_size: int, rank: int, ratio: float) -> SampleStream:
        return SampleStream(len(dataset), seed, world_size, rank, buffer=dataset.buffer, shards=dataset.shards)

    def build(options: Mapping[str, Any]) -> Any:
        dataset = before["build_dataset"](options)
        return _Seeded(dataset, options.get("shuffle_buffer")) if options["phase"] == "train" else dataset

    def create(*args: Any) -> tuple:
        loader, stream, validation, _, iterations = before["create_train_val_dataloader"](*args)
        stream.start = iteration * loader.batch_size
        return loader, stream, validation, epoch, iterations

    vars(basicsr.train).update(EnlargedSampler=sampler, build_dataset=build, create_train_val_dataloader=create)
    try:
        yield
    finally:
        vars(basicsr.train).update(before)


class SampleStream(Sampler):
    """Infinite passes over a dataset, each in a new random order, distributed among processes.

    Args:
        size: Number of images in the dataset.
        seed: Seed of the orders, and of the seeds of the samples.
        world_size: Number of processes.
        rank: Number of this process.
        start: Number of samples that this process has already read.
        buffer: Number of images shuffled at a time, to read the disk sequentially; see
            :func:`~panet_plugin.data.sequential_order`.
        shards: With ``buffer``, the number of each image's shard.
    """

    def __init__(
        self,
        size: int,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        start: int = 0,
        buffer: int | None = None,
        shards: np.ndarray | None = None,
    ) -> None:
        self.size, self.seed, self.world_size, self.rank, self.start = size, seed, world_size, rank, start
        self.buffer, self.shards = buffer, shards

    def __iter__(self) -> Iterator["SeededIndex"]:
        known, order = -1, np.empty(0, int)
        for number in itertools.count(self.start * self.world_size + self.rank, self.world_size):
            times, place = divmod(number, self.size)
            if times != known:
                known, order = times, self._order(times)
            yield SeededIndex(order[place], int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0]))

    def _order(self, times: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, times))
        if self.buffer is None or self.shards is None:
            return rng.permutation(self.size)
        return sequential_order(self.shards, self.buffer, rng, self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: BasicSR's trainer calls this at the start of an epoch."""


class SeededIndex(int):
    """The index of an image, with a 32-bit seed for the random values of the sample."""

    seed: int

    def __new__(cls, index: int, seed: int = 0) -> "SeededIndex":
        """Return the number ``index`` with the seed as an attribute."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self


class _Seeded(Dataset):
    """A dataset whose samples depend only on their seeds, not on the process or on earlier samples."""

    def __init__(self, dataset: Any, buffer: int | None = None) -> None:
        self.dataset, self.buffer = dataset, buffer
        self.shards = getattr(getattr(dataset, "images", None), "shards", None)
        if buffer is not None and self.shards is None:
            raise ConfigError(
                f"datasets.train.shuffle_buffer: expected the type PairedLMDBDataset or CleanImageDataset, not "
                f"{type(dataset).__name__}"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: SeededIndex) -> Any:
        random.seed(index.seed)
        np.random.seed(index.seed)
        torch.default_generator.manual_seed(index.seed)
        return self.dataset[index]
