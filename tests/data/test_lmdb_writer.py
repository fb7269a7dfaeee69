"""LMDBs as the frameworks' readers want them."""

import os

import lmdb
import pytest

from panet_plugin.data import write_lmdb

IMAGES = [(f"{number:04d}", os.urandom(5000), (10, 12, 3)) for number in range(100)]


def read_all(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): value for key, value in transaction.cursor()}


def test_contents(tmp_path):
    assert write_lmdb(tmp_path / "a.lmdb", IMAGES) == 100
    assert read_all(tmp_path / "a.lmdb") == {key: content for key, content, _ in IMAGES}
    assert (tmp_path / "a.lmdb" / "meta_info.txt").read_text().splitlines()[0] == "0000.png (10,12,3) 1"
    assert {path.name for path in (tmp_path / "a.lmdb").iterdir()} == {"data.mdb", "meta_info.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.lmdb"]


@pytest.mark.parametrize("batch_bytes", [1, 20_000, 1 << 30])
def test_map_grows(tmp_path, monkeypatch, batch_bytes):
    """Whether the map fills up between or within transactions, nothing is lost or written twice."""
    monkeypatch.setattr("panet_plugin.data.lmdb_writer.BATCH_BYTES", batch_bytes)
    with (
        pytest.raises(lmdb.MapFullError),
        lmdb.open(str(tmp_path / "small"), map_size=1 << 15) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, content, _ in IMAGES:
            transaction.put(key.encode(), content)
    write_lmdb(tmp_path / "a.lmdb", IMAGES, map_size=1 << 15)
    assert read_all(tmp_path / "a.lmdb") == {key: content for key, content, _ in IMAGES}


def test_same_images_give_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_lmdb(tmp_path / f"{name}.lmdb", iter(IMAGES), map_size=1 << 15)
    assert (tmp_path / "a.lmdb/data.mdb").read_bytes() == (tmp_path / "b.lmdb/data.mdb").read_bytes()


@pytest.mark.parametrize("key", ["a.b", "a b", "a/b", "ä", ""])
def test_key_that_readers_cannot_find_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="key"):
        write_lmdb(tmp_path / "a.lmdb", [(key, b"", (1, 1, 3))])
    assert not (tmp_path / "a.lmdb").exists()


@pytest.mark.parametrize("keys", [["a", "a"], ["b", "a"]])
def test_repeated_or_disordered_keys_are_refused(tmp_path, keys):
    with pytest.raises(ValueError, match="ascend"):
        write_lmdb(tmp_path / "a.lmdb", [(key, b"", (1, 1, 3)) for key in keys])


def test_failure_leaves_nothing_under_the_name(tmp_path):
    def images():
        yield from IMAGES[:3]
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        write_lmdb(tmp_path / "a.lmdb", images())
    assert not (tmp_path / "a.lmdb").exists()
    write_lmdb(tmp_path / "a.lmdb", IMAGES)
    assert len(read_all(tmp_path / "a.lmdb")) == 100
    with pytest.raises(FileExistsError):
        write_lmdb(tmp_path / "a.lmdb", IMAGES)
