import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from panet_plugin.files import locked, write_bytes


def test_threads_that_write_one_file_do_not_take_each_others_parts(tmp_path):
    path, contents = tmp_path / "new/file", [bytes([i]) * 10_000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: write_bytes(path, contents[i % 4]), range(400)):
            assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write its 8 bytes: No space left on device: '.*file'") as raised:
        write_bytes(path, b"new file")
    assert raised.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_lock_ends_with_its_process_though_one_that_it_has_forked_goes_on(tmp_path):
    ready, end = os.pipe(), os.pipe()
    with locked(tmp_path / "set"):
        if (child := os.fork()) == 0:
            os.write(ready[1], b".")
            os.read(end[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    with locked(tmp_path / "set", wait=False):
        pass
    os.write(end[1], b".")
    os.waitpid(child, 0)
