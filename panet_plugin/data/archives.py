"""Unpacking untrusted archives: nothing is written outside the folder, and the unpacked size is limited."""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tqdm import tqdm

from panet_plugin.data.manifest import digest, sha256_of
from panet_plugin.errors import PanetError
from panet_plugin.files import locked

# Images are compressed: real archives unpack to little more than their own size, a few times that for BMP and TIFF.
LARGEST_RATIO = 20
MOST_MEMBERS = 100_000
# Tar headers hold names and attributes. Those of real archives have some hundred bytes.
LARGEST_HEADER = 1 << 20
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class BadArchiveError(PanetError, ValueError):
    """An archive that is damaged or malicious."""


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes]]


def is_archive(path: str | os.PathLike) -> bool:
    """Return whether a file is a zip or tar archive, judged by its content."""
    try:
        with _read_errors(Path(path)), _opened(Path(path)):
            return True
    except BadArchiveError:
        return False


def extract(path: str | os.PathLike, folder: str | os.PathLike) -> None:
    """Unpack a zip or tar archive. The folder appears once it is complete, or not at all.

    Hidden files and those added by macOS are skipped.

    Args:
        path: The archive.
        folder: Destination; it must not exist. ``.NAME.partial`` beside it is used meanwhile.

    Raises:
        BadArchiveError: The archive is damaged, encrypted or not an archive; a member's path leads out of the folder,
            occurs twice or is a link or device; or the unpacked size exceeds :data:`LARGEST_RATIO` times its own.
        OSError: A file cannot be read or written, or the disk has too little space left.
    """
    path, folder = Path(path), Path(folder)
    limit = LARGEST_RATIO * path.stat().st_size
    with _made_as_a_whole(folder) as partial, _read_errors(path), _opened(path) as members:
        # All names are checked before anything is written.
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


def unpack(archives: Iterable[str | os.PathLike], root: str | os.PathLike) -> Path:
    """Unpack archives, each to a folder of its name, unless that exists.

    Args:
        archives: The archives.
        root: They go to ``ROOT/unpacked/DIGEST``, so that other archives of the same names are not mistaken for them.

    Returns:
        The folder that holds the contents of these archives and nothing else.

    Raises:
        ValueError: The names of two archives differ only in their suffix.
        BadArchiveError, OSError: As :func:`extract`.
    """
    paths = sorted(map(Path, archives))
    names = {without_suffix(path.name).casefold(): path for path in paths}
    if len(names) < len(paths):
        twice = next(path for path in paths if path not in names.values())
        raise ValueError(f"{twice}: there is another archive with this name; move one of them away")
    hashes = [(without_suffix(path.name), sha256_of(path, f"{path.name}: checking")) for path in paths]
    folder = Path(root, "unpacked", digest(hashes)[:12])
    for path in paths:
        target = folder / without_suffix(path.name)
        with locked(target):
            if not target.is_dir():
                extract(path, target)
    return folder


def has_suffix(path: Path) -> bool:
    """Return whether a file has an archive's name and is not hidden: macOS adds ``._NAME.zip`` beside ``NAME.zip``."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def without_suffix(name: str) -> str:
    """Return the name of an archive without ``.zip``, ``.tar.gz`` and the like."""
    suffix = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]


class _TarInfo(tarfile.TarInfo):
    """Refuses headers that would exhaust memory: ``tarfile`` reads long names and attributes as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in tarfile.REGULAR_TYPES and info.size > LARGEST_HEADER:
            raise BadArchiveError(f"a header of {info.size} bytes, expected {LARGEST_HEADER} at most")
        return info


@contextmanager
def _made_as_a_whole(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the folder; rename it to the folder on success, remove it on failure."""
    partial = folder.with_name(f".{folder.name}.partial")
    # Left by a killed run.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[_Member]]:
    with path.open("rb") as file:
        # A tar file that ends in a zip file would be taken for a zip file.
        starts_as_zip = file.read(2) == b"PK"
    if starts_as_zip and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            yield _zip_members(path, file)
    else:
        with tarfile.open(path, tarinfo=_TarInfo) as file:
            yield _tar_members(path, file)


def _zip_members(path: Path, file: zipfile.ZipFile) -> Iterator[_Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BadArchiveError(f"{path}: {info.filename!r} is a link or device, expected files and folders only")
        if info.flag_bits & 1:
            raise BadArchiveError(f"{path}: {info.filename!r} is encrypted")
        yield _Member(info.filename, info.file_size, info.is_dir(), partial(file.open, info))


def _tar_members(path: Path, file: tarfile.TarFile) -> Iterator[_Member]:
    for info in file:
        if not (info.isfile() or info.isdir()):
            raise BadArchiveError(f"{path}: {info.name!r} is a link or device, expected files and folders only")
        # This is what extractfile returns for files.
        yield _Member(info.name, info.size, info.isdir(), partial(tarfile.ExFileObject, file, info))
    # The checksum of a compressed archive follows the last member.
    while file.fileobj.read(1 << 20):
        pass


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise BadArchiveError(f"{path}: {name!r} leads out of the destination folder")


def _checked(path: Path, members: Iterator[_Member], limit: int) -> list[_Member]:
    """Return the files to write; raise an error at the first bad member."""
    kept: dict[str, _Member] = {}
    folders: set[str] = set()
    total = 0
    for number, member in enumerate(members):
        _check_name(path, member.name)
        total += member.size
        if total > limit or number >= MOST_MEMBERS:
            raise BadArchiveError(
                f"{path}: holds more than {number} files or {limit} bytes, {LARGEST_RATIO} times its own size"
            )
        if member.is_folder:
            continue
        # On some disks, names that differ only in case are one file.
        name = PurePosixPath(member.name.lower())
        if str(name) in kept:
            raise BadArchiveError(f"{path}: holds {member.name!r} twice")
        kept[str(name)] = member
        folders.update(map(str, name.parents))
    if twofold := folders & kept.keys():
        raise BadArchiveError(f"{path}: {min(twofold)!r} is both a file and a folder")
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
                raise BadArchiveError(f"{member.name!r} is larger than its header states")
            file.write(block)
            progress.update(len(block))
    if left:
        raise BadArchiveError(f"{member.name!r} is smaller than its header states")


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Convert the reader's errors about damage to errors that name the archive."""
    try:
        yield
    except BadArchiveError as error:
        raise error if str(path) in str(error) else BadArchiveError(f"{path}: {error}") from error
    # Python's readers check little: a name that is not UTF-8 raises a ValueError, an empty name an IndexError.
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
        *(EOFError, RuntimeError, ValueError, LookupError, OverflowError),
    ) as error:
        raise BadArchiveError(f"{path}: damaged, or not a zip or tar archive: {error}") from error
    except OSError as error:
        # bz2 and gzip raise an OSError without a number for damaged data; EINVAL is a seek to a negative offset.
        if error.errno in (None, errno.EINVAL):
            raise BadArchiveError(f"{path}: damaged: {error}") from error
        raise
