"""A random order of images that reads the disk sequentially."""

import numpy as np
from numpy.typing import NDArray


def sequential_order(
    shards: NDArray[np.integer], buffer: int, rng: np.random.Generator, streams: int = 1
) -> NDArray[np.int64]:
    """Return a permutation of a set's images: shard by shard, shuffled only within blocks of consecutive images.

    Shards come in random order. Their images in sequence are divided into as many equal pieces as there are streams,
    and each piece, from a random offset, into blocks of ``buffer`` images, which are shuffled. Each stream therefore
    reads one block after another from the disk.

    Args:
        shards: Number of each image's shard, in the order in which the images are stored.
        buffer: Images per block, at least 1. A block should fit into the page cache.
        rng: Random generator; streams that share the images need generators with equal states.
        streams: Processes that read at the same time. Process ``r`` takes every ``streams``-th image starting with
            the ``r``-th, which are those of its piece.

    Returns:
        ``(len(shards),)`` indices.

    Raises:
        ValueError: If ``buffer`` is below 1.
    """
    if buffer < 1:
        raise ValueError(f"the shuffle buffer must have at least 1 image, got {buffer}")
    numbers = rng.permutation(np.unique(shards))
    order = np.empty(len(shards), np.int64)
    sequence = np.concatenate([np.flatnonzero(shards == number) for number in numbers])
    for stream, piece in enumerate(np.array_split(sequence, streams)):
        for block in np.split(piece, range(int(rng.integers(buffer)), len(piece), buffer)):
            rng.shuffle(block)
        order[stream::streams] = piece
    return order
