"""Names of the files of a prepared set, and its manifest ``ROOT/NAME.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from panet_plugin.data.image_reader import list_images

# Version of the prepared files; sets with another version are prepared again.
FORMAT = 3


@dataclass(frozen=True)
class Layout:
    """Names of the LMDBs and folders of a prepared set, relative to its root.

    Args:
        name: Name of the set, such as ``DIV2K_train``.
        subimages: Whether the LMDBs hold sub-images or whole images.
        shard: The shard that this is the layout of, such as ``3-of-8``; None without shards.
    """

    name: str
    subimages: bool = False
    shard: str | None = None

    @property
    def _suffix(self) -> str:
        return "_sub" if self.subimages else ""

    @property
    def _lmdb(self) -> str:
        return f"{self._suffix}.lmdb" + (f"/{self.shard}.lmdb" if self.shard else "")

    @property
    def manifest(self) -> str:
        """JSON file with the sources and contents of the set."""
        return f"{self.name}.json"

    @property
    def hr(self) -> str:
        """Folder of ``KEY.png``."""
        return f"{self.name}_HR"

    @property
    def lr_root(self) -> str:
        """Folder of the folders of LR images."""
        return f"{self.name}_LR_bicubic"

    def lr(self, scale: int) -> str:
        """Folder of ``KEYx{scale}.png``."""
        return f"{self.lr_root}/X{scale}"

    @property
    def hr_sub(self) -> str:
        """Folder of ``KEY_s001.png`` and so on."""
        return f"{self.hr}_sub"

    def lr_sub(self, scale: int) -> str:
        """Folder of the LR sub-images, of the same names as the HR ones."""
        return f"{self.lr(scale)}_sub"

    @property
    def hr_lmdb(self) -> str:
        """LMDB of the HR images or sub-images."""
        return f"{self.hr}{self._lmdb}"

    def lr_lmdb(self, scale: int) -> str:
        """LMDB of the LR images or sub-images, of the same keys as the HR one."""
        return f"{self.lr_root}_X{scale}{self._lmdb}"

    def lmdbs(self, scales: Sequence[int]) -> list[str]:
        """All LMDBs."""
        return [self.hr_lmdb, *map(self.lr_lmdb, scales)]

    def folders(self, scales: Sequence[int]) -> list[str]:
        """All folders of images."""
        whole = [self.hr, *map(self.lr, scales)]
        return [*whole, self.hr_sub, *map(self.lr_sub, scales)] if self.subimages else whole


class Entry(NamedTuple):
    """An image written to a folder or LMDB; for an LMDB, ``name`` is the key with ``.png``."""

    name: str
    sha256: str
    shape: tuple[int, int, int]

    @property
    def key(self) -> str:
        """Name without its suffix."""
        return self.name.rsplit(".", 1)[0]


def digest(files: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 of the lines that ``sha256sum`` would print for files (name, SHA-256), sorted by name."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def summary(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the manifest's entry for an output."""
    return {"count": len(entries), "sha256": digest((entry.name, entry.sha256) for entry in entries)}


def sha256_of(path: Path, label: str | None = None) -> str:
    """Return the SHA-256 of a file, with a progress bar if a label is given."""
    sha256 = hashlib.sha256()
    total = path.stat().st_size
    with (
        path.open("rb") as file,
        tqdm(desc=label, total=total, unit="B", unit_scale=True, leave=False, disable=label is None) as progress,
    ):
        # hashlib.file_digest came with Python 3.11.
        while block := file.read(1 << 20):
            sha256.update(block)
            progress.update(len(block))
    return sha256.hexdigest()


def count_images(path: Path) -> int:
    """Return the number of images in a prepared folder or LMDB; 0 if it does not exist."""
    if path.suffix == ".lmdb":
        meta_info = path / "meta_info.txt"
        return len(meta_info.read_text().splitlines()) if meta_info.exists() and (path / "data.mdb").exists() else 0
    return len(list_images(path))


def to_json(value: dict[str, Any]) -> bytes:
    """Encode in the format of all our JSON files."""
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(path: Path) -> dict[str, Any] | None:
    """Read one of our JSON files; None if it does not exist, ValueError if it is damaged."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: damaged; remove it: {error}") from error
