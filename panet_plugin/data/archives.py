"""Unpacking archives that others made: nothing leaves the folder, and nothing grows without bounds."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from panet_plugin.files import locked

# Images are compressed already: honest archives hold hardly more than their own size; BMP and TIFF a few times that.
LARGEST_RATIO = 20
MOST_MEMBERS = 100_000
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class BadArchiveError(ValueError):
    """An archive that is damaged, or that no honest program made."""


class _Member(NamedTuple):
    name: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file is a zip or tar archive, by its content."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def extract(path: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Unpack a zip or tar archive; the folder is there with all of it, or not at all.

    Hidden files, and what macOS adds, are left out.

    Args:
        path: The archive.
        folder: Where to; made, must not exist. ``.NAME.partial`` beside it is in use meanwhile.

    Raises:
        BadArchiveError: The archive is damaged, encrypted or no archive; a member is named outside of the folder, twice
            or is a link or device; or it would become many times as large as it is.
        OSError: A file cannot be read or written, or the disk has too little space left.
    """
    path, folder = Path(path), Path(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    limit = LARGEST_RATIO * path.stat().st_size
    with _read_errors(path), _opened(path) as members:
        # All names are looked at before anything is written.
        checked = _checked(path, members, limit)
        needed = sum(member.size for member in checked)
        free = shutil.disk_usage(partial).free
        if needed > free:
            raise OSError(
                errno.ENOSPC, f"{needed / 1e9:.1f} GB to unpack, {free / 1e9:.1f} GB free on the disk", str(folder)
            )
        with tqdm(desc=f"{path.name}: unpacking", total=needed, unit="B", unit_scale=True) as progress:
            for member in checked:
                target = partial / PurePosixPath(member.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(member, target, progress)
    partial.replace(folder)


def unpack(path: str | os.PathLike, root: str | os.PathLike) -> Path:
    """Unpack an archive as :func:`extract` does, below ``ROOT/unpacked`` and unless it is there; return the folder."""
    path = Path(path)
    folder = Path(root) / "unpacked" / path.name.split(".")[0]
    with locked(folder):
        if not folder.is_dir():
            extract(path, folder)
    return folder


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[_Member]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            yield _zip_members(path, file)
    else:
        with tarfile.open(path) as file:
            yield _tar_members(path, file)
            # The checksum of a compressed archive is behind the last member.
            while file.fileobj.read(1 << 20):
                pass


def _zip_members(path: Path, file: zipfile.ZipFile) -> Iterator[_Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadArchiveError(f"{path}: {info.filename!r} is a link or device, expected files and folders only")
        if info.flag_bits & 1:
            raise BadArchiveError(f"{path}: {info.filename!r} is encrypted")
        if info.is_dir():
            _check_name(path, info.filename)
        else:
            yield _Member(info.filename, info.file_size, lambda info=info: file.open(info))


def _tar_members(path: Path, file: tarfile.TarFile) -> Iterator[_Member]:
    for info in file:
        if not (info.isfile() or info.isdir()):
            raise BadArchiveError(f"{path}: {info.name!r} is a link or device, expected files and folders only")
        if info.isdir():
            _check_name(path, info.name)
        else:
            yield _Member(info.name, info.size, lambda info=info: file.extractfile(info))


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise BadArchiveError(f"{path}: {name!r} leads out of the folder that it should be unpacked to")


def _checked(path: Path, members: Iterator[_Member], limit: int) -> list[_Member]:
    """Members that are to be written; stops at the first one that is not right."""
    kept: dict[str, _Member] = {}
    total = 0
    for member in members:
        _check_name(path, member.name)
        total += member.size
        if total > limit or len(kept) >= MOST_MEMBERS:
            raise BadArchiveError(
                f"{path}: holds more than {len(kept)} files or {limit} bytes, {LARGEST_RATIO} times its own size"
            )
        # Names that differ in case alone are one file on some disks.
        key = str(PurePosixPath(member.name)).lower()
        if key in kept:
            raise BadArchiveError(f"{path}: holds {member.name!r} twice")
        kept[key] = member
    return [
        member
        for member in kept.values()
        if not any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(member.name).parts)
    ]


def _copy(member: _Member, target: Path, progress: tqdm) -> None:
    left = member.size
    with member.open() as source, target.open("xb") as file:
        while block := source.read(1 << 20):
            left -= len(block)
            if left < 0:
                raise BadArchiveError(f"{member.name!r} is larger than the archive says")
            file.write(block)
            progress.update(len(block))
    if left:
        raise BadArchiveError(f"{member.name!r} is smaller than the archive says")


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Name the archive in whatever its reader raises about damage."""
    try:
        yield
    except BadArchiveError as error:
        raise error if str(path) in str(error) else BadArchiveError(f"{path}: {error}") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadArchiveError(f"{path}: damaged, or no zip or tar archive: {error}") from error
    except OSError as error:
        # bz2 and gzip say so of damaged data, without an error number.
        if error.errno is None:
            raise BadArchiveError(f"{path}: damaged: {error}") from error
        raise
