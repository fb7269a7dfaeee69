from concurrent.futures import ThreadPoolExecutor

from panet_plugin.files import write_bytes


def test_threads_that_write_one_file_do_not_take_each_others_parts(tmp_path):
    path, contents = tmp_path / "new/file", [bytes([i]) * 10_000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: write_bytes(path, contents[i % 4]), range(400)):
            assert path.read_bytes() in contents
    assert list(path.parent.iterdir()) == [path]
