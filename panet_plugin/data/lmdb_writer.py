"""LMDBs of images as BasicSR lays them out; MMagic reads them too."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import lmdb

from panet_plugin.data.images import PNG_COMPRESSION

# What the readers of both frameworks can look up: they cut keys at the first dot, space or slash and encode to ASCII.
KEY = re.compile(r"[A-Za-z0-9_+-]{1,400}")
# Of a new memory map; it is doubled whenever it is full.
MAP_BYTES = 64 << 20


class EncodedImage(NamedTuple):
    """An image as an LMDB holds it.

    Attributes:
        key: Letters, digits, ``_``, ``+`` and ``-``.
        content: The PNG file.
        shape: Height, width, channels.
    """

    key: str
    content: bytes
    shape: tuple[int, int, int]


def append_to_lmdb(path: str | os.PathLike, images: Sequence[EncodedImage], held: int = 0) -> None:
    """Add a batch of encoded images to an LMDB, in one transaction: all of them or none.

    Equal batches in equal order give equal bytes, whether or not a process was killed in between: each is written
    through an environment of its own, which remembers nothing. There is no lock file: both frameworks read without
    locking.

    Args:
        path: The LMDB's folder; made if missing.
        images: What to add.
        held: How many images the earlier batches had. If this one already exists too, nothing is done.

    Raises:
        ValueError: A key that the frameworks cannot look up, or that already exists, or another number of images
            in the LMDB than expected.
        OSError: The LMDB cannot be written.
    """
    path = Path(path)
    for image in images:
        if not KEY.fullmatch(image.key):
            raise ValueError(f"{path}: key {image.key!r} may hold letters, digits, '_', '+' and '-' only")
    path.mkdir(parents=True, exist_ok=True)
    try:
        with lmdb.open(str(path), map_size=MAP_BYTES, lock=False) as environment:
            count = environment.stat()["entries"]
            if count == held + len(images):
                return
            if count != held:
                raise ValueError(f"{path}: holds {count} images, expected {held}")
            _commit(path, environment, images)
    except lmdb.Error as error:
        # LMDB has exceptions of its own for what the operating system says, and wraps its number in a text; of a disk
        # that took a part of what was written, it says that input or output failed.
        needed = sum(len(image.content) for image in images)
        full = os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(path).free < needed
        raise OSError(errno.ENOSPC if full else errno.EIO, f"cannot write the LMDB: {error}", str(path)) from error


def _commit(path: Path, environment: lmdb.Environment, images: Sequence[EncodedImage]) -> None:
    """Write one transaction, again with a larger map if the map was too small for it."""
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for image in images:
                    if not transaction.put(image.key.encode("ascii"), image.content, overwrite=False):
                        raise ValueError(f"{path}: the key {image.key!r} already exists")
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def write_meta_info(path: str | os.PathLike, images: Iterable[tuple[str, tuple[int, int, int]]]) -> None:
    """Write the ``meta_info.txt`` of an LMDB, which lists its keys and shapes in the order given."""
    lines = (f"{key}.png ({h},{w},{c}) {PNG_COMPRESSION}\n" for key, (h, w, c) in images)
    (Path(path) / "meta_info.txt").write_text("".join(lines), encoding="ascii")
