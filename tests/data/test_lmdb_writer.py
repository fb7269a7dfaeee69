"""LMDBs as the frameworks' readers want them."""

import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys

import lmdb
import pytest
from killing import stop_at_random_moments

from panet_plugin.data.lmdb_writer import EncodedImage, append_to_lmdb, write_meta_info

IMAGES = [EncodedImage(f"{number:04d}", random.Random(number).randbytes(5000), (10, 12, 3)) for number in range(100)]


def read_all(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): value for key, value in transaction.cursor()}


def write(path, step=40):
    for start in range(0, len(IMAGES), step):
        append_to_lmdb(path, IMAGES[start : start + step], held=start)


def contents(images):
    return {image.key: image.content for image in images}


def test_contents(tmp_path):
    write(tmp_path / "a.lmdb")
    write_meta_info(tmp_path / "a.lmdb", [(image.key, image.shape) for image in IMAGES])
    assert read_all(tmp_path / "a.lmdb") == contents(IMAGES)
    lines = (tmp_path / "a.lmdb" / "meta_info.txt").read_text().splitlines()
    assert lines == [f"{number:04d}.png (10,12,3) 1" for number in range(100)]
    assert {path.name for path in (tmp_path / "a.lmdb").iterdir()} == {"data.mdb", "meta_info.txt"}


@pytest.mark.parametrize("step", [1, 7, 100])
def test_map_grows(tmp_path, monkeypatch, step):
    """Whether the map fills up between or within transactions, nothing is lost or written twice."""
    monkeypatch.setattr("panet_plugin.data.lmdb_writer.MAP_BYTES", 1 << 15)
    with (
        pytest.raises(lmdb.MapFullError),
        lmdb.open(str(tmp_path / "small"), map_size=1 << 15) as environment,
        environment.begin(write=True) as transaction,
    ):
        for image in IMAGES:
            transaction.put(image.key.encode(), image.content)
    write(tmp_path / "a.lmdb", step)
    assert read_all(tmp_path / "a.lmdb") == contents(IMAGES)


def test_batch_that_is_there_is_not_written_again(tmp_path):
    write(tmp_path / "a.lmdb")
    append_to_lmdb(tmp_path / "b.lmdb", IMAGES[:40])
    before = (tmp_path / "b.lmdb/data.mdb").read_bytes()
    append_to_lmdb(tmp_path / "b.lmdb", IMAGES[:40])
    assert (tmp_path / "b.lmdb/data.mdb").read_bytes() == before
    write(tmp_path / "b.lmdb")
    assert (tmp_path / "a.lmdb/data.mdb").read_bytes() == (tmp_path / "b.lmdb/data.mdb").read_bytes()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_in_the_midst(tmp_path):
    """Each batch is begun again and again by processes that are killed; the file is that of an undisturbed run."""
    context = multiprocessing.get_context("fork")
    write(tmp_path / "whole.lmdb", 10)
    for first in range(0, len(IMAGES), 10):

        def append(first=first):
            append_to_lmdb(tmp_path / "a.lmdb", IMAGES[first : first + 10], held=first)

        def start(append=append):
            process = context.Process(target=append)
            process.start()
            return process

        stop_at_random_moments(start, 2)
        append()
    assert (tmp_path / "a.lmdb/data.mdb").read_bytes() == (tmp_path / "whole.lmdb/data.mdb").read_bytes()


@pytest.mark.parametrize("key", ["a.b", "a b", "a/b", "ä", ""])
def test_key_that_readers_cannot_find_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="key"):
        append_to_lmdb(tmp_path / "a.lmdb", [*IMAGES[:2], EncodedImage(key, b"", (1, 1, 3))])
    assert not (tmp_path / "a.lmdb").exists()


def test_repeated_keys_are_refused(tmp_path):
    append_to_lmdb(tmp_path / "a.lmdb", IMAGES[:3])
    with pytest.raises(ValueError, match="'0002' already exists"):
        append_to_lmdb(tmp_path / "a.lmdb", IMAGES[2:5], held=3)
    assert read_all(tmp_path / "a.lmdb") == contents(IMAGES[:3])


def test_another_number_of_images_is_refused(tmp_path):
    append_to_lmdb(tmp_path / "a.lmdb", IMAGES[:3])
    with pytest.raises(ValueError, match="contains 3 images, expected 7"):
        append_to_lmdb(tmp_path / "a.lmdb", IMAGES[7:9], held=7)


def test_disk_that_takes_no_more(tmp_path):
    """What LMDB raises becomes an OSError that names the LMDB, and the batches before stay whole."""
    append_to_lmdb(tmp_path / "a.lmdb", IMAGES[:3])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write the LMDB: .*a\.lmdb"):
            append_to_lmdb(tmp_path / "a.lmdb", IMAGES[3:], held=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_all(tmp_path / "a.lmdb") == contents(IMAGES[:3])
    append_to_lmdb(tmp_path / "a.lmdb", IMAGES[3:], held=3)
    assert read_all(tmp_path / "a.lmdb") == contents(IMAGES)


ON_A_SMALL_DISK = """
import errno, sys
from panet_plugin.data.lmdb_writer import EncodedImage, append_to_lmdb

images = [EncodedImage(f"{number:04d}", bytes([number]) * 5000, (10, 12, 3)) for number in range(100)]
append_to_lmdb(sys.argv[1], images[:10])
try:
    append_to_lmdb(sys.argv[1], images[10:], held=10)
except OSError as error:
    assert error.errno == errno.ENOSPC, error
    append_to_lmdb(sys.argv[1], images[10:12], held=10)
    print("full")
"""


def test_disk_that_is_full(tmp_path):
    """LMDB says of one that takes a part of what is written that input or output failed."""
    mounted = f"mount -t tmpfs -o size=300k tmpfs {tmp_path}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, mounted], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    command = f'{mounted} && exec "{sys.executable}" -c "$0" {tmp_path}/a.lmdb'
    done = subprocess.run(
        [*unshare, command, ON_A_SMALL_DISK],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "full\n", done.stderr
