"""Clean images of a folder or of a LMDB, from which tasks make their pairs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from panet_plugin.data.images import decode_image, read_image
from panet_plugin.data.lmdb_reader import LmdbRecords
from panet_plugin.data.missing import missing_data
from panet_plugin.data.pictures import SUFFIXES, BadImageError, list_pictures


class CleanImages:
    """The images of a folder, or of a LMDB as data_prep/ writes it, by their sorted names.

    Args:
        root: The folder, or ``NAME.lmdb``.

    Attributes:
        names: The names: keys of the LMDB, or file names without their suffix.

    Raises:
        FileNotFoundError: If there is nothing of that name, or no image in it.
        BadImageError: If the LMDB is damaged.
        ValueError: If two files differ in their suffix alone.
    """

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(root).expanduser()
        self.is_lmdb = self.root.suffix == ".lmdb"
        if not (self.root / "meta_info.txt").is_file() if self.is_lmdb else not self.root.is_dir():
            raise missing_data(self.root)
        self._files: dict[str, Path] = {}
        if self.is_lmdb:
            self._records = LmdbRecords(self.root)
            # A name that is not ASCII has no record.
            lines = (self.root / "meta_info.txt").read_text(encoding="ascii", errors="replace").splitlines()
            names = {line.split(".")[0] for line in lines if line.strip()}
        else:
            paths = list_pictures(self.root)
            self._files = {path.stem: path for path in paths}
            names = set(self._files)
            if len(names) < len(paths):
                twice = next(path for path in paths if self._files[path.stem] != path)
                raise ValueError(f"{self.root}: {twice.name} and {self._files[twice.stem].name} have one name")
        if not names:
            raise FileNotFoundError(
                f"{self.root}: no image in it; expected files ending in {', '.join(sorted(SUFFIXES))}"
            )
        self.names = sorted(names)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> np.ndarray:
        """Return an image as RGB ``(H, W, 3)``, uint8 or uint16.

        Raises:
            KeyError: If there is no file of that name.
            BadImageError: If it is damaged, or missing in the LMDB.
        """
        if not self.is_lmdb:
            return read_image(self._files[name])
        try:
            content = self._records[name.encode()]
        except KeyError:
            raise BadImageError(f"{self.root}: {name}: no such record, expected an image") from None
        return decode_image(content, f"{self.root}: {name}")

    def read_patchable(self, name: str, side: int | None) -> np.ndarray:
        """Return an image from which a patch of ``side`` pixels can be cut; BadImageError if it is smaller."""
        image = self.read(name)
        if side and min(image.shape[:2]) < side:
            height, width = image.shape[:2]
            raise BadImageError(
                f"{self.root}: {name} has {height}x{width} pixels, patches of {side}x{side} are asked for"
            )
        return image


def fresh_rng() -> np.random.Generator:
    """Return a generator for one training sample.

    It draws its seed from PyTorch's, which differs in every data-loading worker and epoch; BasicSR seeds NumPy's and
    Python's alike at the start of every epoch.
    """
    # Here, so that the preparation of data, which needs no PyTorch, does not wait for its import.
    import torch

    return np.random.default_rng(int(torch.randint(2**63 - 1, ())))
