"""LMDBs of images as BasicSR lays them out; MMagic reads them too."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import lmdb

from panet_plugin.data.images import PNG_COMPRESSION

# What the readers of both frameworks can look up: they cut keys at the first dot, space or slash and encode to ASCII.
KEY = re.compile(r"[A-Za-z0-9_+-]{1,400}")
BATCH_BYTES = 32 << 20


def write_lmdb(
    path: str | os.PathLike,
    images: Iterable[tuple[str, bytes, tuple[int, int, int]]],
    map_size: int = 64 << 20,
) -> int:
    """Write encoded images into a new LMDB with its ``meta_info.txt``; under its name it is either whole or not there.

    Equal images give equal bytes. There is no lock file: both frameworks read without locking.

    Args:
        path: The folder to make, ``NAME.lmdb``; must not exist.
        images: (key, PNG bytes, (height, width, channels)) in ascending order of the keys.
        map_size: First size of the memory map in bytes; it is doubled whenever it is full.

    Returns:
        The number of images.

    Raises:
        ValueError: A key that the frameworks cannot look up, or that is out of order or repeated.
        FileExistsError: There is something under this name.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)

    lines = []
    batch: list[tuple[bytes, bytes]] = []
    batch_bytes = 0
    previous = ""
    with lmdb.open(str(temporary), map_size=map_size, lock=False) as environment:
        for key, content, (height, width, channels) in images:
            if not KEY.fullmatch(key):
                raise ValueError(f"{path}: key {key!r} may hold letters, digits, '_', '+' and '-' only")
            if key <= previous:
                raise ValueError(f"{path}: keys must ascend, but {key!r} comes after {previous!r}")
            previous = key
            lines.append(f"{key}.png ({height},{width},{channels}) {PNG_COMPRESSION}\n")
            batch.append((key.encode("ascii"), content))
            batch_bytes += len(content)
            if batch_bytes >= BATCH_BYTES:
                _commit(environment, batch)
                batch, batch_bytes = [], 0
        _commit(environment, batch)
    (temporary / "meta_info.txt").write_text("".join(lines), encoding="ascii")
    temporary.replace(path)
    return len(lines)


def _commit(environment: lmdb.Environment, batch: list[tuple[bytes, bytes]]) -> None:
    """Write one transaction, again with a larger map if the map was too small for it."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, content in batch:
                    transaction.put(key, content, append=True)
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
