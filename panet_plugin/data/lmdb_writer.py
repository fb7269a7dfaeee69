"""Writing LMDBs of images in BasicSR's layout, which MMagic reads too."""

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

# Keys that both frameworks can look up: they truncate keys at the first dot, space or slash and encode them as ASCII.
KEY = re.compile(r"[A-Za-z0-9_+-]{1,400}")
# Initial size of the memory map; it is doubled whenever it is full.
MAP_BYTES = 64 << 20


class EncodedImage(NamedTuple):
    """An image as stored in an LMDB.

    Attributes:
        key: Letters, digits, ``_``, ``+`` and ``-``.
        content: The PNG file.
        shape: Height, width, channels.
    """

    key: str
    content: bytes
    shape: tuple[int, int, int]


def append_to_lmdb(path: str | os.PathLike, images: Sequence[EncodedImage], held: int = 0) -> None:
    """Add a batch of encoded images to an LMDB in one transaction: all of them or none.

    The same batches in the same order give the same bytes, even if a process was killed in between: each is written
    through a new environment, which keeps no state. There is no lock file: both frameworks read without locking.

    Args:
        path: The LMDB's folder; created if missing.
        images: The batch.
        held: Number of images in the earlier batches. If this batch is in the LMDB already, nothing is done.

    Raises:
        ValueError: The frameworks cannot look up a key, a key already exists, or the LMDB has an unexpected number of
            images.
        OSError: The LMDB cannot be written.
    """
    path = Path(path)
    for image in images:
        if not KEY.fullmatch(image.key):
            raise ValueError(f"{path}: key {image.key!r} may contain only letters, digits, '_', '+' and '-'")
    path.mkdir(parents=True, exist_ok=True)
    try:
        with lmdb.open(str(path), map_size=MAP_BYTES, lock=False) as environment:
            count = environment.stat()["entries"]
            if count == held + len(images):
                return
            if count != held:
                raise ValueError(f"{path}: contains {count} images, expected {held}")
            _commit(path, environment, images)
    except lmdb.Error as error:
        # LMDB wraps the operating system's errors in its own, with the number in the text; after a partial write, it
        # reports a failure of input or output.
        needed = sum(len(image.content) for image in images)
        full = os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(path).free < needed
        raise OSError(errno.ENOSPC if full else errno.EIO, f"cannot write the LMDB: {error}", str(path)) from error


def _commit(path: Path, environment: lmdb.Environment, images: Sequence[EncodedImage]) -> None:
    """Write one transaction; retry with a larger map if the map is full."""
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
