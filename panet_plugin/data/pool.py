"""A cache of decoded images: decoding an image takes longer than training on a patch of it."""

from collections.abc import Callable

import numpy as np

#: The decoded images of one sample, such as a degraded and a clean image.
Images = tuple[np.ndarray, ...]


class ImagePool:
    """Reads images by name and keeps as many as fit into its memory, for loading random patches.

    A set that fits is decoded once. With a larger one, every ``reuse``-th requested image that is not kept is read and
    replaces others; for the rest, a random kept image is returned. In the long run all images are returned equally
    often, and each decoded image ``reuse`` times.

    Args:
        read: Returns the images for a name.
        memory: Maximum bytes to keep, per loading process.
        reuse: Patches per decoded image, at least 1.

    Raises:
        ValueError: If an argument is outside its range.
    """

    def __init__(self, read: Callable[[str], Images], memory: int, reuse: int = 16) -> None:
        if memory < 0 or reuse < 1:
            raise ValueError(f"memory must be at least 0 bytes and reuse at least 1, got {memory} and {reuse}")
        self._read = read
        self._memory = memory
        self._reuse = reuse
        self._clear()

    def _clear(self) -> None:
        self._kept: dict[str, Images] = {}
        self._names: list[str] = []  # the keys of _kept, for picking one at random
        self._bytes = 0

    def draw(self, name: str, rng: np.random.Generator) -> Images:
        """Return the images for a name, or for another one instead; they must not be modified."""
        if name in self._kept:
            return self._kept[name]
        full = self._names and self._bytes + self._mean_bytes() > self._memory
        if full and rng.integers(self._reuse):
            return self._kept[self._names[rng.integers(len(self._names))]]
        images = self._read(name)
        size = _bytes_of(images)
        while self._names and self._bytes + size > self._memory:
            self._drop(int(rng.integers(len(self._names))))
        if size <= self._memory:
            self._kept[name] = images
            self._names.append(name)
            self._bytes += size
        return images

    def _mean_bytes(self) -> float:
        return self._bytes / len(self._names)

    def _drop(self, number: int) -> None:
        name, self._names[number] = self._names[number], self._names[-1]
        self._names.pop()
        self._bytes -= _bytes_of(self._kept.pop(name))

    def __getstate__(self) -> dict:
        state = vars(self).copy()
        for name in ("_kept", "_names", "_bytes"):
            del state[name]
        return state

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._clear()


def _bytes_of(images: Images) -> int:
    return sum(image.nbytes for image in images)


def random_patches(images: Images, side: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Copy the same random square from images with the same content.

    Args:
        images: ``(H, W, ...)``; the sides of all others are multiples of those of the first.
        side: Side of the patch of the first image in pixels, at most the image's shorter side.
        rng: Random generator for the position.
    """
    height, width = images[0].shape[:2]
    top, left = (int(rng.integers(length - side + 1)) for length in (height, width))
    patches = []
    for image in images:
        scale = image.shape[0] // height
        rows, columns = (slice(start * scale, (start + side) * scale) for start in (top, left))
        patches.append(image[rows, columns].copy())
    return patches
