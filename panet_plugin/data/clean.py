"""Clean images from a folder, an LMDB or a sharded LMDB, from which tasks make their pairs."""

from __future__ import annotations

import os
from bisect import bisect_left
from itertools import pairwise
from pathlib import Path

import numpy as np

from panet_plugin.data.image_reader import SUFFIXES, BadImageError, list_images
from panet_plugin.data.images import decode_image, read_image
from panet_plugin.data.lmdb_reader import LmdbRecords
from panet_plugin.data.missing import missing_data
from panet_plugin.data.shards import shard_paths


class CleanImages:
    """The images of a folder, an LMDB or its shards as data_prep/ writes them, by sorted name.

    Args:
        root: The folder, or ``NAME.lmdb``: an LMDB or a folder of its shards, each of which is opened on first use.

    Attributes:
        names: The names: keys of the LMDB, or file names without their suffix.
        shards: The number of each name's shard, from 0; all zeros without shards.

    Raises:
        FileNotFoundError: If it does not exist, or contains no image.
        BadImageError: If the LMDB is damaged, or a shard is missing, truncated or duplicated.
        ValueError: If two names differ only in their suffix.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(root).expanduser()
        self.is_lmdb = self.root.suffix == ".lmdb"
        self._files: dict[str, Path] = {}
        self._lmdbs: dict[int, LmdbRecords] = {}
        if self.is_lmdb:
            self._paths = shard_paths(self.root)
            if not self._paths:
                raise missing_data(self.root)
            found = sorted((name, number) for number, path in enumerate(self._paths) for name in _listed(path))
            for (name, number), (following, other) in pairwise(found):
                if name == following:
                    raise BadImageError(f"{self._paths[other]}: {name} is in {self._paths[number]} too")
            self.names = [name for name, _ in found]
            self.shards = np.fromiter((number for _, number in found), np.int32, len(found))
            if len(self._paths) == 1:
                self._records(0)
        else:
            if not self.root.is_dir():
                raise missing_data(self.root)
            paths = list_images(self.root)
            self._files = {path.stem: path for path in paths}
            if len(self._files) < len(paths):
                twice = next(path for path in paths if self._files[path.stem] != path)
                raise ValueError(f"{self.root}: {twice.name} and {self._files[twice.stem].name} have the same name")
            self.names = sorted(self._files)
            self.shards = np.zeros(len(self.names), np.int32)
        if not self.names:
            raise FileNotFoundError(
                f"{self.root}: contains no image; expected files ending in {', '.join(sorted(SUFFIXES))}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> np.ndarray:
        """Return an image as RGB ``(H, W, 3)``, uint8 or uint16.

        Raises:
            KeyError: If there is no file with that name.
            BadImageError: If it is damaged, or missing from the LMDB.
        """
        if not self.is_lmdb:
            return read_image(self._files[name])
        index = bisect_left(self.names, name)
        try:
            if self.names[index : index + 1] != [name]:
                raise KeyError(name)
            number = int(self.shards[index])
            content = self._records(number)[name.encode()]
        except KeyError:
            raise BadImageError(f"{self.root}: {name}: no such record, expected an image") from None
        return decode_image(content, f"{self._paths[number]}: {name}")

    def _records(self, number: int) -> LmdbRecords:
        if number not in self._lmdbs:
            self._lmdbs[number] = LmdbRecords(self._paths[number])
        return self._lmdbs[number]

    def read_patchable(self, name: str, side: int | None) -> np.ndarray:
        """Return an image that is large enough for a patch of ``side`` pixels; BadImageError if it is smaller."""
        image = self.read(name)
        if side and min(image.shape[:2]) < side:
            height, width = image.shape[:2]
            raise BadImageError(
                f"{self.root}: {name} has {height}x{width} pixels, expected at least {side}x{side} for a patch"
            )
        return image


def _listed(path: Path) -> set[str]:
    """Return the keys that an LMDB's meta_info.txt lists."""
    # Keys are ASCII; a name that is not has no record.
    lines = (path / "meta_info.txt").read_text(encoding="ascii", errors="replace").splitlines()
    return {line.split(".")[0] for line in lines if line.strip()}


def fresh_rng() -> np.random.Generator:
    """Return a random generator for one training sample.

    Its seed is drawn from PyTorch's generator, which differs in every data-loading worker and epoch. BasicSR gives
    NumPy's and Python's generators the same seeds in every epoch.
    """
    # Not at the top: data preparation does not need PyTorch and should not wait for its import.
    import torch

    return np.random.default_rng(int(torch.randint(2**63 - 1, ())))
