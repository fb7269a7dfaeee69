"""Reading LMDBs that may be damaged: all offsets are checked against the file's size.

The lmdb library trusts the file: on a truncated or modified one, the process may be killed by a signal.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from panet_plugin.data.image_reader import BadImageError

# A page: flags and end of its list of nodes. A node: size or page number in three parts, and the size of the key.
_PAGE, _NODE = struct.Struct("<10xHH2x"), struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
# A meta page: magic, version, page size, records and root of the main database, last page, transaction.
_HEAD = struct.Struct("<16xII16xI76xQQQQ")
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NO_ROOT = 2**64 - 1


def count_records(path: str | os.PathLike) -> int:
    """Return the number of records in an LMDB's header, without reading more than that.

    Raises:
        BadImageError: If it is not an LMDB, or truncated.
        OSError: If it cannot be read.
    """
    path = Path(path, "data.mdb")
    with path.open("rb") as file:
        page_size, records, _, last = _read_head(path, file)
        if (size := os.fstat(file.fileno()).st_size) < (last + 1) * page_size:
            raise _damaged(path, f"it ends after {size} bytes, expected {(last + 1) * page_size}")
    return records


def _damaged(path: Path, reason: str) -> BadImageError:
    return BadImageError(f"{path}: damaged, or not an LMDB: {reason}")


def _read_head(path: Path, file: BinaryIO) -> tuple[int, int, int, int]:
    """Return the page size, the number of records, the root page and the last page from the newer meta page."""
    head, offset, found = file.read(1 << 17), 0, []
    for _ in range(2):
        try:
            flags, _ = _PAGE.unpack_from(head, offset)
            magic, version, page_size, records, root, last, transaction = _HEAD.unpack_from(head, offset)
        except struct.error as error:
            raise _damaged(path, "a page ends early") from error
        if flags & _META != _META or (magic, version) != (_MAGIC, _VERSION):
            raise _damaged(path, "its first pages are not meta pages of LMDB")
        if page_size not in (1 << bits for bits in range(9, 17)):
            raise _damaged(path, f"pages of {page_size} bytes")
        found.append((transaction, page_size, records, root, last))
        offset = page_size
    return max(found)[1:]


class LmdbRecords(Mapping[bytes, bytes]):
    """The records of an LMDB with plain keys and values, sorted by key.

    It keeps no file open, and 24 bytes and the key of each record in memory.

    Args:
        path: Folder of the LMDB, written on a 64-bit little-endian machine.

    Raises:
        BadImageError: If it is damaged or not an LMDB.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._file = Path(path, "data.mdb")
        keys, self._ends, self._places = bytearray(), array("Q"), array("Q")
        try:
            for key, place in self._walk():
                keys += key
                self._ends.append(len(keys))
                self._places.extend(place)
        except (struct.error, IndexError) as error:  # offsets outside a page
            raise self._damaged("a page ends early") from error
        self._keys = bytes(keys)

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[bytes]:
        return map(self._key, range(len(self)))

    def __getitem__(self, key: bytes) -> bytes:
        """Return a record; KeyError if there is none."""
        index = bisect_left(range(len(self)), key, key=self._key)
        if index == len(self) or self._key(index) != key:
            raise KeyError(key)
        offset, size = self._places[2 * index : 2 * index + 2]
        with self._file.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise self._damaged("it was truncated while in use")
        return content

    def _key(self, index: int) -> bytes:
        return self._keys[self._ends[index - 1] if index else 0 : self._ends[index]]

    def _damaged(self, reason: str) -> BadImageError:
        return _damaged(self._file, reason)

    def _walk(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        with self._file.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            page_size, _, root, _ = _read_head(self._file, file)
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
                        raise self._damaged(f"page {number} refers to a page that was already read")
                    seen.update(below)
                    pages += below
                elif flags == _LEAF:
                    room = page_size
                    for node in nodes:
                        key, offset, size = self._record(page, node, number * page_size, page_size)
                        room -= _NODE.size + len(key)
                        if room < 0 or offset + size > total:
                            raise self._damaged(f"a record of page {number} extends beyond the end of the file or page")
                        yield key, (offset, size)
                else:
                    raise self._damaged(f"page {number} is of an unknown kind ({flags})")

    def _record(self, page: bytes, node: int, start: int, page_size: int) -> tuple[bytes, int, int]:
        """Return the key, offset and size of a leaf's record."""
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        size, key_start = low | high << 16, node + _NODE.size
        value = key_start + key_size
        if flags == 0 and value + size <= len(page):
            return page[key_start:value], start + value, size
        if flags != 1:
            raise self._damaged(f"a record at {start + node} is not a plain value")
        (overflow,) = _NUMBER.unpack_from(page, value)
        return page[key_start:value], overflow * page_size + 16, size
