"""Training data for BasicSR's trainer that can be entered anywhere: a sample depends on its number alone."""

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
    """Let BasicSR's trainer load :class:`SampleStream` for a while, in the place of epochs that begin anew.

    Its own epochs shuffle by their number and give every worker the same random numbers again, so that a training
    cannot be resumed within one.

    Args:
        seed: Of the order of the images and of all that is random about the samples.
        iteration: Where the training goes on.
        epoch: That of the trainer there, which is the only one now.
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
    """Passes over a dataset without end, each in an order of its own, shared out among processes.

    Args:
        size: Images of the dataset.
        seed: Of the orders, and of the seeds of the samples.
        world_size: Number of processes.
        rank: That of this one.
        start: Samples that this process has had before.
        buffer: Images that are shuffled at a time, where the disk is to be read in sequence; see
            :func:`~panet_plugin.data.sequential_order`.
        shards: With ``buffer``, the number of the shard of every image.
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
        """Do nothing: BasicSR's trainer tells its samplers that an epoch begins."""


class SeededIndex(int):
    """The index of an image, with the seed of what is random about the sample, in 32 bits."""

    seed: int

    def __new__(cls, index: int, seed: int = 0) -> "SeededIndex":
        """Return the number ``index`` with an attribute."""
        self = super().__new__(cls, index)
        self.seed = seed
        return self


class _Seeded(Dataset):
    """A dataset whose samples are random by their seed alone, whichever process makes them, and what it made before."""

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
