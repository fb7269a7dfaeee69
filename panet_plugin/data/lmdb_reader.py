"""Reading LMDBs that may be damaged: no record of a file leads out of it.

The library trusts the file: where one was cut or changed, it ends the process by a signal.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from panet_plugin.data.pictures import BadImageError

# Of a page: its flags, and where its list of nodes ends. Of a node: size or page in three parts, size of the key.
_PAGE, _NODE = struct.Struct("<10xHH2x"), struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
# Of a meta page: magic, version, size of pages, the root of the main database, the transaction.
_ROOTS = struct.Struct("<16xII16xI84xQ8xQ")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_ROOT = 2**64 - 1


class LmdbRecords:
    """Where the records of a LMDB of plain keys and values lie; it keeps no file open.

    Args:
        path: Its folder, written by a 64-bit machine of little-endian byte order.

    Attributes:
        places: Offset and size in bytes of every record in ``data.mdb``, by key, in the order of the keys.

    Raises:
        BadImageError: If it is damaged or no LMDB.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._file = Path(path, "data.mdb")
        try:
            self.places = dict(self._walk())
        except (struct.error, IndexError) as error:  # numbers that lead out of a page
            raise self._damaged("a page ends early") from error

    def __getitem__(self, key: bytes) -> bytes:
        """Return a record; KeyError if there is none."""
        offset, size = self.places[key]
        with self._file.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise self._damaged("it was cut while it was in use")
        return content

    def _damaged(self, reason: str) -> BadImageError:
        return BadImageError(f"{self._file}: damaged, or no LMDB: {reason}")

    def _walk(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        with self._file.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            page_size, root = self._root(file.read(1 << 17))
            pages = [root] if root != _NO_ROOT else []
            seen = set(pages)
            while pages:
                number = pages.pop()
                if (number + 1) * page_size > total:
                    raise self._damaged(f"page {number} is beyond its {total} bytes")
                file.seek(number * page_size)
                page = file.read(page_size)
                flags, end = _PAGE.unpack_from(page)
                nodes = struct.unpack_from(f"<{max(0, end - 16) // 2}H", page, 16)
                if flags == _BRANCH:
                    parts = (_NODE.unpack_from(page, node) for node in reversed(nodes))
                    below = [low | middle << 16 | high << 32 for low, middle, high, _ in parts]
                    if len(set(below)) < len(below) or not seen.isdisjoint(below):
                        raise self._damaged(f"page {number} leads to where it was already")
                    seen.update(below)
                    pages += below
                elif flags == _LEAF:
                    room = page_size
                    for node in nodes:
                        key, offset, size = self._record(page, node, number * page_size, page_size)
                        room -= _NODE.size + len(key)
                        if room < 0 or offset + size > total:
                            raise self._damaged(f"a record of page {number} goes beyond its end")
                        yield key, (offset, size)
                else:
                    raise self._damaged(f"page {number} is of no known kind ({flags})")

    def _root(self, head: bytes) -> tuple[int, int]:
        """Return the size of pages, and the number of the root's, by the newer of the two meta pages."""
        found = []
        offset = 0
        for _ in range(2):
            flags, _ = _PAGE.unpack_from(head, offset)
            magic, version, page_size, root, transaction = _ROOTS.unpack_from(head, offset)
            if flags & _META != _META or (magic, version) != (_MAGIC, _VERSION):
                raise self._damaged("its first pages do not say that it is one")
            if page_size not in (1 << bits for bits in range(9, 17)):
                raise self._damaged(f"pages of {page_size} bytes")
            found.append((transaction, page_size, root))
            offset = page_size
        return max(found)[1:]

    def _record(self, page: bytes, node: int, start: int, page_size: int) -> tuple[bytes, int, int]:
        """Return the key, offset and size of a leaf's record."""
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        size, key_start = low | high << 16, node + _NODE.size
        value = key_start + key_size
        if flags == 0 and value + size <= len(page):
            return page[key_start:value], start + value, size
        if flags != 1:
            raise self._damaged(f"a record at {start + node} is no plain value")
        (overflow,) = _NUMBER.unpack_from(page, value)
        return page[key_start:value], overflow * page_size + 16, size
