"""Downloads from a real server that drops, lies and changes its mind."""

import hashlib
import logging
import os
import random
import signal
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
from file_server import serve, zipped
from killing import stop_at_random_moments

from panet_plugin.data import download
from panet_plugin.data.download import DownloadError, download_archive, file_name

CONTENT = zipped({"images/0001.png": random.Random(0).randbytes(700_000)})
OTHER = zipped({"images/0001.png": random.Random(1).randbytes(700_000)})
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)


@pytest.fixture
def server():
    with serve({"/a.zip": CONTENT}) as server:
        yield server


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_known_archive(server, tmp_path, capfd):
    download_archive(f"{server.url}/a.zip", tmp_path / "down/a.zip", SHA256, len(CONTENT))
    assert (tmp_path / "down/a.zip").read_bytes() == CONTENT
    assert visible(tmp_path / "down") == ["a.zip"]
    assert "a.zip: 100%" in capfd.readouterr().err
    download_archive(f"{server.url}/a.zip", tmp_path / "down/a.zip", SHA256, len(CONTENT))
    assert len(server.requests) == 1


def test_unknown_archive_is_recorded_and_expected_from_then_on(server, tmp_path):
    path = tmp_path / "a.zip"
    download_archive(f"{server.url}/a.zip", path)
    assert (tmp_path / "a.zip.sha256").read_text() == f"{SHA256}  a.zip\n"
    path.unlink()
    server.files["/a.zip"] = OTHER
    with pytest.raises(DownloadError, match=SHA256):
        download_archive(f"{server.url}/a.zip", path)
    assert not path.exists()
    path.write_bytes(OTHER)
    with pytest.raises(DownloadError, match=rf"a\.zip has the SHA-256 .* expected {SHA256}"):
        download_archive(f"{server.url}/a.zip", path)


def test_dropped_connections_are_continued(server, tmp_path, caplog):
    server.drop_after = [294_912, 98_304, 0]
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=294912-", "bytes=393216-", "bytes=393216-"]
    assert f"393216 of {len(CONTENT)} bytes" in caplog.text
    assert visible(tmp_path) == ["a.zip"]


def test_server_that_brings_nothing_any_more(server, tmp_path):
    server.drop_after = [294_912] + [0] * 50
    with pytest.raises(DownloadError, match="the connection ended after 294912"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert len(server.requests) == 1 + download.TRIES
    assert not (tmp_path / "a.zip").exists()
    # What has arrived is not lost.
    server.drop_after = []
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert server.requests[-1][1] == "bytes=294912-"
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_server_that_is_not_there(tmp_path):
    with serve({}) as gone:
        url = gone.url
    with pytest.raises(DownloadError, match=url):
        download_archive(f"{url}/a.zip", tmp_path / "a.zip")


def test_other_file_in_between_is_not_spliced(server, tmp_path):
    server.drop_after = [294_912] + [0] * 6
    with pytest.raises(DownloadError):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip")
    server.files["/a.zip"], server.drop_after = OTHER, []
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == OTHER


def test_server_without_ranges(server, tmp_path):
    server.ranges, server.drop_after = False, [294_912]
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_part_that_is_as_long_as_the_file(server, tmp_path):
    """Killed between the last byte and the check: the server has no more to send."""
    partial = tmp_path / ".a.zip.partial"
    partial.mkdir()
    (partial / "data").write_bytes(CONTENT)
    (partial / "data.version").write_text(f'"{SHA256[:8]}"')
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.requests[0][1] == f"bytes={len(CONTENT)}-"


def test_part_that_is_known_to_be_whole_is_not_asked_for(server, tmp_path, capfd):
    """Killed while it was checked."""
    partial = tmp_path / ".a.zip.partial"
    partial.mkdir()
    (partial / "data").write_bytes(CONTENT)
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256, len(CONTENT))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.requests == []
    assert "a.zip: checking:" in capfd.readouterr().err
    (partial / "data").parent.mkdir()
    (partial / "data").write_bytes(OTHER)
    (tmp_path / "a.zip").unlink()
    with pytest.raises(DownloadError, match=SHA256):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256, len(OTHER))
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256, len(CONTENT))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_killed_while_it_is_checked(server, tmp_path, context):
    """What has arrived is not lost."""
    process = context.Process(target=fetch_and_die, args=(f"{server.url}/a.zip", tmp_path / "a.zip"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256, len(CONTENT))
    assert len(server.requests) == 1


def fetch_and_die(url, path):
    download.sha256_of = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
    fetch(url, path)


@pytest.mark.parametrize(
    ("url", "name"), [("http://a.b/c/d.zip?download=1#e", "d.zip"), ("http://a.b/Set%205.tar.gz", "Set 5.tar.gz")]
)
def test_file_name(url, name):
    assert file_name(url) == name


def test_address_of_no_file():
    with pytest.raises(ValueError, match=r"http://a\.b/\?c: expected the URL of a file"):
        file_name("http://a.b/?c")


def test_wrong_checksum(server, tmp_path):
    server.files["/a.zip"] = OTHER
    with pytest.raises(DownloadError, match=rf"(?s){server.url}/a\.zip.*{SHA256}"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert len(server.requests) == 1
    assert not (tmp_path / "a.zip").exists()
    server.files["/a.zip"] = CONTENT
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert server.requests[-1][1] is None


def test_wrong_size_is_noticed_before_the_download(server, tmp_path):
    with pytest.raises(DownloadError, match=f"{len(CONTENT)} bytes, expected 5"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256, 5)


def test_disk_with_too_little_space(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(OSError, match="to download") as error:
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert error.value.errno == 28
    assert not (tmp_path / "a.zip").exists()


def test_404(server, tmp_path):
    with pytest.raises(DownloadError, match=r"b\.zip: the server answered 404"):
        download_archive(f"{server.url}/b.zip", tmp_path / "b.zip")
    assert len(server.requests) == 1


def test_busy_server_is_asked_again(server, tmp_path, caplog):
    server.statuses = [503, 500]
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert len(server.requests) == 3
    assert "503" in caplog.text


@pytest.mark.parametrize("sha256", [None, SHA256], ids=["unknown", "known"])
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_web_page_with_status_200(server, tmp_path, sha256, content_type):
    server.pages = content_type
    with pytest.raises(DownloadError, match=rf"{server.url}/a\.zip"):
        download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", sha256)
    assert not (tmp_path / "a.zip").exists()
    assert not (tmp_path / "a.zip.sha256").exists()
    server.pages = ""
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", sha256)


def test_two_at_once_download_once(server, tmp_path):
    server.delay = 0.01
    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(download_archive, f"{server.url}/a.zip", tmp_path / "a.zip", SHA256) for _ in range(3)]
    assert all(future.exception() is None for future in done)
    assert len(server.requests) == 1


def fetch(url, path):
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    download_archive(url, path, SHA256)


def test_killed_at_random_moments(context, server, tmp_path):
    server.delay = 0.01

    def start():
        asked = len(server.requests)
        process = context.Process(target=fetch, args=(f"{server.url}/a.zip", tmp_path / "a.zip"))
        process.start()
        while process.is_alive() and len(server.requests) == asked:
            time.sleep(0.001)
        return process

    stop_at_random_moments(start, 6, undo=(tmp_path / "a.zip").unlink)
    server.delay = 0
    download_archive(f"{server.url}/a.zip", tmp_path / "a.zip", SHA256)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert visible(tmp_path) == ["a.zip"]
    assert any(wanted for _, wanted in server.requests)
