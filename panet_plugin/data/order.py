"""An order of images that is random, and yet reads the disk in sequence."""

import numpy as np
from numpy.typing import NDArray


def sequential_order(
    shards: NDArray[np.integer], buffer: int, rng: np.random.Generator, streams: int = 1
) -> NDArray[np.int64]:
    """Return all images of a set once: shard by shard, shuffled only among those that lie together.

    Shards come in random order. What they hold in sequence is cut into as many equal pieces as there are streams, and
    each piece into blocks of ``buffer`` images, from a random place on, which are shuffled. So a stream reads a block
    from the disk, and then the one behind it.

    Args:
        shards: The number of the shard of every image, which lie there in this order.
        buffer: Images of a block, at least 1: what must fit into the page cache, and from which a batch is drawn.
        rng: What all is drawn from; streams that are to share the images need equal ones.
        streams: Processes that read at the same time. That of number ``r`` takes every ``streams``-th, from the
            ``r``-th on, which are those of its piece.

    Returns:
        ``(len(shards),)`` indices.

    Raises:
        ValueError: If ``buffer`` is below 1.
    """
    if buffer < 1:
        raise ValueError(f"the buffer for shuffling must have at least 1 image, got {buffer}")
    numbers = rng.permutation(np.unique(shards))
    order = np.empty(len(shards), np.int64)
    sequence = np.concatenate([np.flatnonzero(shards == number) for number in numbers])
    for stream, piece in enumerate(np.array_split(sequence, streams)):
        for block in np.split(piece, range(int(rng.integers(buffer)), len(piece), buffer)):
            rng.shuffle(block)
        order[stream::streams] = piece
    return order
