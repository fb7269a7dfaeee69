"""Records are those that the library reads; a damaged LMDB is named, where the library would end the process."""

import os

import lmdb
import numpy as np
import pytest

from panet_plugin.data import BadImageError
from panet_plugin.data.lmdb_reader import LmdbRecords

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Return an LMDB of several levels of pages, with values within pages and beyond, some replaced and removed."""
    path = tmp_path_factory.mktemp("many")
    with lmdb.open(str(path), map_size=64 << 20, lock=False) as environment:
        for _ in range(2):
            with environment.begin(write=True) as transaction:
                for number in RNG.permutation(3000):
                    key = f"{number:04}" + "k" * int(RNG.integers(0, 300))
                    transaction.put(key.encode(), RNG.bytes(int(RNG.choice([0, 9, 500, 5000]))))
        with environment.begin(write=True) as transaction:
            for key in list(transaction.cursor().iternext(values=False))[::3]:
                transaction.delete(key)
    return path


def test_records_are_those_of_the_library(many):
    records = LmdbRecords(many)
    with lmdb.open(str(many), readonly=True, lock=False) as environment, environment.begin() as transaction:
        assert environment.stat()["depth"] >= 3
        assert list(records.items()) == list(transaction.cursor())
    with pytest.raises(KeyError):
        records[b"none"]


def test_an_empty_one(tmp_path):
    lmdb.open(str(tmp_path), lock=False).close()
    assert dict(LmdbRecords(tmp_path)) == {}


def damaged(many, tmp_path, change):
    content = bytearray((many / "data.mdb").read_bytes())
    change(content)
    (tmp_path / "data.mdb").write_bytes(content)
    return pytest.raises(BadImageError, match=r"data\.mdb: damaged, or not an LMDB: ")


def root_of(content):
    """Return where the root's page begins: the newer meta page names it."""
    newer = max((0, 4096), key=lambda page: content[page + 144 : page + 152][::-1])
    return int.from_bytes(content[newer + 128 : newer + 136], "little") * 4096


def to_itself(content):
    """Let the first node of the root lead to the root."""
    root = root_of(content)
    node = root + int.from_bytes(content[root + 16 : root + 18], "little")
    content[node : node + 6] = (root // 4096).to_bytes(6, "little")


def long_list(content):
    content[root_of(content) + 12 : root_of(content) + 14] = b"\xff\xff"


DAMAGE = {
    "cut": lambda content: content.__delitem__(slice(len(content) // 2, None)),
    "cut in its first page": lambda content: content.__delitem__(slice(100, None)),
    "empty": bytearray.clear,
    "another file": lambda content: content.__setitem__(slice(0, 9000), bytes(9000)),
    "size of pages": lambda content: content.__setitem__(slice(40, 44), b"\xff" * 4),
    "kind of page": lambda content: content.__setitem__(root_of(content) + 10, 0x40),
    "list beyond its page": long_list,
    "loop": to_itself,
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_damaged(many, tmp_path, change):
    with damaged(many, tmp_path, change):
        LmdbRecords(tmp_path)


def test_cut_while_it_is_in_use(many, tmp_path):
    (tmp_path / "data.mdb").write_bytes((many / "data.mdb").read_bytes())
    records = LmdbRecords(tmp_path)
    key = max(records, key=lambda key: len(records[key]))
    os.truncate(tmp_path / "data.mdb", (many / "data.mdb").read_bytes().index(records[key]))
    with pytest.raises(BadImageError, match="truncated while in use"):
        records[key]
