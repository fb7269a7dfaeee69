"""Downloading archives: downloads are resumed and verified, and a file has its final name only when it is complete."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests
from tqdm import tqdm

from panet_plugin.data.archives import is_archive
from panet_plugin.data.manifest import sha256_of
from panet_plugin.errors import PanetError
from panet_plugin.files import locked, write_bytes

logger = logging.getLogger(__name__)

#: Folder of downloaded archives, below the root.
ARCHIVES = "archives"
# Attempts in a row without progress; before the next one it waits 1, 2, 4, ... times the pause in seconds.
TRIES = 6
PAUSE = 1.0
TIMEOUT = 60
# Temporary failures. Others, such as 404, are final.
PASSING_STATUS = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(PanetError, OSError):
    """A file cannot be downloaded, or is not the expected one."""


class _Interrupted(Exception):
    """A transfer was interrupted and may be continued."""


def download_archive(url: str, path: str | os.PathLike, sha256: str | None = None, size: int | None = None) -> None:
    """Download a zip or tar archive, or verify an existing one.

    If no SHA-256 is known, that of the first download is stored beside it, as ``NAME.sha256``, and expected from then
    on. An interrupted download is continued if the file on the server has not changed.

    Args:
        url: HTTP address.
        path: Destination.
        sha256: Expected hash, in hexadecimal.
        size: Expected bytes.

    Raises:
        DownloadError: The server does not have the file, does not answer or has another file; or the existing file is
            another one.
        OSError: The disk has too little space, or cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with locked(path):
        known, was_there = expected_sha256(path, sha256), path.exists()
        if not was_there:
            partial.mkdir(exist_ok=True)
            _retrieve(url, partial, path.name, known, size)
            (partial / path.name).replace(path)
        if was_there or known is None:
            check_archive(path, known)
        shutil.rmtree(partial, ignore_errors=True)


def file_name(url: str) -> str:
    """Return the file name in a URL, without ``?download=1`` and the like.

    Raises:
        ValueError: There is none.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name:
        raise ValueError(f"{url}: expected the URL of a file")
    return name


def expected_sha256(path: Path, sha256: str | None = None) -> str | None:
    """Return the given SHA-256, or the one stored when the archive was first seen."""
    record = path.with_name(f"{path.name}.sha256")
    return sha256 or (record.read_text().split()[0] if record.exists() else None)


def check_archive(path: Path, sha256: str | None = None) -> None:
    """Compare the SHA-256 of an archive with the expected one, or store it if none is known.

    Raises:
        DownloadError: It is another file, or not an archive.
    """
    expected, found = expected_sha256(path, sha256), sha256_of(path, f"{path.name}: checking")
    if expected is None:
        if not is_archive(path):
            raise DownloadError(f"{path} is not a zip or tar archive: move it away")
        write_bytes(path.with_name(f"{path.name}.sha256"), f"{found}  {path.name}\n".encode())
    elif found != expected:
        raise DownloadError(f"{path} has the SHA-256 {found}, expected {expected}: move it away to have it downloaded")


def _retrieve(url: str, folder: Path, name: str, sha256: str | None, size: int | None) -> None:
    """Download a file to its own folder and check it."""
    if not (folder / name).exists():
        _Resuming(folder / "data", size, sha256).download(url, folder / name)
    if sha256 is None and not is_archive(folder / name):
        (folder / name).unlink()
        raise DownloadError(f"{url} returned something other than a zip or tar archive")


class _Resuming:
    """Downloads that keep what has been received.

    Args:
        part: File for the received bytes; ``.version`` beside it holds the ETag or date of the server's file.
        size: Expected bytes.
        sha256: Expected SHA-256.
    """

    def __init__(self, part: Path, size: int | None, sha256: str | None) -> None:
        self.part = part
        self.version = part.with_suffix(".version")
        self.size = size
        self.sha256 = sha256

    def download(self, url: str, target: Path) -> None:
        """Download a file, or the rest of it, and move it into place once it is verified."""
        failures = 0
        # If the size is not known, the server reports what is missing.
        while self.size is None or self._have() != self.size:
            before = self._have()
            try:
                self._continue(url)
                break
            except (_Interrupted, requests.ConnectionError, requests.Timeout) as error:
                failures = 0 if self._have() > before else failures + 1
                if failures == TRIES:
                    raise DownloadError(f"{url}: {error}") from error
                logger.warning("%s: %s; trying again", url, error)
                time.sleep(PAUSE * 2**failures)
            except requests.RequestException as error:
                raise DownloadError(f"{url}: {error}") from error
        if self.sha256 and (found := sha256_of(self.part, f"{file_name(url)}: checking")) != self.sha256:
            self.part.unlink()
            raise DownloadError(f"{url} has the SHA-256 {found}, expected {self.sha256}")
        self.part.replace(target)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self, url: str) -> None:
        have = self._have()
        headers = {"Accept-Encoding": "identity"}
        if have and self.version.exists():
            # The server sends the rest if the file has not changed, and all of it otherwise.
            headers |= {"Range": f"bytes={have}-", "If-Range": self.version.read_text()}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:
                self.part.unlink()
                raise _Interrupted("the partial download is longer than the file")
            if response.status_code in PASSING_STATUS:
                raise _Interrupted(f"{response.status_code} {response.reason}")
            if not response.ok:
                raise DownloadError(f"{url}: the server answered {response.status_code} {response.reason}")
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise DownloadError(f"{url} returned a web page instead of an archive")
            if response.status_code != 206:
                have = 0
                self.part.unlink(missing_ok=True)
                self._note_version(response)
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else self.size
            if self.size and total != self.size:
                raise DownloadError(f"{url}: {total} bytes, expected {self.size}")
            free = shutil.disk_usage(self.part.parent).free
            if total and total - have > free:
                raise OSError(errno.ENOSPC, f"{(total - have) / 1e9:.1f} GB to download, {free / 1e9:.1f} GB free", url)
            self._receive(response, have, total, file_name(url))
        if total and self._have() != total:
            raise _Interrupted(f"the connection ended after {self._have()} of {total} bytes")

    def _note_version(self, response: requests.Response) -> None:
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        self.version.unlink(missing_ok=True)
        if version:
            write_bytes(self.version, version.encode())

    def _receive(self, response: requests.Response, have: int, total: int | None, label: str) -> None:
        with (
            self.part.open("ab") as file,
            tqdm(desc=label, total=total, initial=have, unit="B", unit_scale=True) as progress,
        ):
            try:
                # Small: an interruption loses an incomplete block.
                for block in response.iter_content(1 << 14):
                    if total and file.tell() + len(block) > total:
                        raise DownloadError(f"{response.url}: sent more than the announced {total} bytes")
                    file.write(block)
                    progress.update(len(block))
            except requests.exceptions.ChunkedEncodingError as error:
                raise _Interrupted(f"the connection ended after {file.tell()} of {total} bytes") from error
