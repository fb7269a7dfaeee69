"""A pass that reads the disk in sequence has all images once, and each process its own."""

import numpy as np
import pytest

from panet_plugin.data.order import sequential_order

#: Of 1003 images, as the sorted names of a set in shards lie in them.
SHARDS = np.arange(1003) % 4


@pytest.mark.parametrize("streams", [1, 2, 3, 7])
@pytest.mark.parametrize("buffer", [1, 10, 5000])
def test_every_image_once_and_in_sequence(streams, buffer):
    order = sequential_order(SHARDS, buffer, np.random.default_rng(0), streams)
    assert sorted(order) == list(range(1003))
    # Where an image lies on the disk, if shards follow each other as they are read.
    places = np.argsort(sequential_order(SHARDS, 1, np.random.default_rng(0)))
    # Each shard is read as a whole before the next.
    assert np.count_nonzero(np.diff(SHARDS[np.argsort(places)])) == 3
    taken = [places[order[stream::streams]] for stream in range(streams)]
    ends = np.cumsum([0, *map(len, taken)])
    for part, start in zip(taken, ends, strict=False):
        assert sorted(part) == list(range(start, start + len(part)))
        assert abs(part - np.arange(start, start + len(part))).max() < buffer


def test_passes_differ_and_can_be_repeated():
    rng = np.random.default_rng(0)
    first, second = (sequential_order(SHARDS, 10, rng) for _ in range(2))
    assert set(first[:100]) != set(second[:100]) or (first != second).any()
    # Other images meet in a block.
    assert np.array_equal(first, sequential_order(SHARDS, 10, np.random.default_rng(0)))
    neighbors = [{frozenset(order[i : i + 2]) for i in range(1002)} for order in (first, second)]
    assert len(neighbors[0] & neighbors[1]) < 300


def test_a_buffer_has_an_image():
    with pytest.raises(ValueError, match="at least 1 image, got 0"):
        sequential_order(SHARDS, 0, np.random.default_rng(0))
