"""Decoded images in memory, and patches cut from them."""

import pickle
from collections import Counter

import numpy as np
import pytest

from panet_plugin.data import ImagePool, random_patches

SIZE = 100  # bytes of an image


class Reader:
    """Gives images of 100 bytes that hold their number, and counts."""

    def __init__(self):
        self.reads = 0

    def __call__(self, name):
        self.reads += 1
        return (np.full((10, 10), int(name), np.uint8),)


def draw(pool, names, rng):
    return [int(pool.draw(str(name), rng)[0][0, 0]) for name in names]


def test_a_set_that_fits_is_read_once():
    reader, rng = Reader(), np.random.default_rng(0)
    pool = ImagePool(reader, 10 * SIZE)
    for _ in range(3):
        assert draw(pool, range(10), rng) == list(range(10))
    assert reader.reads == 10


def test_of_a_larger_set_few_are_read_and_all_come_up_alike():
    reader, rng = Reader(), np.random.default_rng(0)
    pool = ImagePool(reader, 10 * SIZE, reuse=4)
    counts = Counter(draw(pool, rng.integers(40, size=40_000), rng))
    assert 5_000 < reader.reads < 10_000  # three quarters are not kept, and a quarter of those is read
    assert len(counts) == 40
    assert max(counts.values()) < 2 * min(counts.values())
    assert sum(images[0].nbytes for images in pool._kept.values()) <= 10 * SIZE


@pytest.mark.parametrize("memory", [0, SIZE - 1])
def test_without_memory_every_image_is_read(memory):
    reader, rng = Reader(), np.random.default_rng(0)
    assert draw(ImagePool(reader, memory), [1, 1, 2], rng) == [1, 1, 2]
    assert reader.reads == 3


def test_another_process_begins_with_nothing():
    rng = np.random.default_rng(0)
    pool = ImagePool(Reader(), 10 * SIZE)
    draw(pool, range(10), rng)
    assert len(pickle.dumps(pool)) < 500
    assert draw(pickle.loads(pickle.dumps(pool)), [3, 3], rng) == [3, 3]


@pytest.mark.parametrize("arguments", [{"memory": -1}, {"memory": 1, "reuse": 0}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match="memory must be at least 0 bytes and reuse at least 1"):
        ImagePool(Reader(), **arguments)


def test_patches_show_the_same_place_and_are_copies():
    low = np.arange(30).reshape(5, 6)
    high = low.repeat(2, 0).repeat(2, 1)
    rng, corners = np.random.default_rng(0), set()
    for _ in range(200):
        small, large = random_patches((low, high), 3, rng)
        np.testing.assert_array_equal(small.repeat(2, 0).repeat(2, 1), large)
        corners.add(int(small[0, 0]))
        small[:] = -1
    assert corners == {6 * row + column for row in range(3) for column in range(4)}
    assert low.min() == 0
