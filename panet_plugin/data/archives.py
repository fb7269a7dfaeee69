"""Unpacking archives that others made: nothing leaves the folder, and nothing grows without bounds."""

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

# Images are compressed already: honest archives hold hardly more than their own size; BMP and TIFF a few times that.
LARGEST_RATIO = 20
MOST_MEMBERS = 100_000
# Of tar files: names, attributes. Those of honest archives are some hundred bytes.
LARGEST_HEADER = 1 << 20
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


class BadArchiveError(PanetError, ValueError):
    """An archive that is damaged, or that no honest program made."""


class _Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes]]


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file is a zip or tar archive, by its content."""
    try:
        with _read_errors(Path(path)), _opened(Path(path)):
            return True
    except BadArchiveError:
        return False


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
    limit = LARGEST_RATIO * path.stat().st_size
    with _made_as_a_whole(folder) as partial, _read_errors(path), _opened(path) as members:
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


def unpack(archives: Iterable[str | os.PathLike], root: str | os.PathLike) -> Path:
    """Unpack archives side by side, each to a folder of its name, unless they are there.

    Args:
        archives: The archives.
        root: They go below ``ROOT/unpacked/DIGEST``: other archives of the same names are not taken for these.

    Returns:
        The folder of what is in these archives, and nothing else.

    Raises:
        ValueError: Two archives have the same name but for their suffix.
        BadArchiveError, OSError: As :func:`extract`.
    """
    paths = sorted(map(Path, archives))
    names = {without_suffix(path.name).casefold(): path for path in paths}
    if len(names) < len(paths):
        twice = next(path for path in paths if path not in names.values())
        raise ValueError(f"{twice}: there is another archive of this name: move one of them away")
    hashes = [(without_suffix(path.name), sha256_of(path, f"{path.name}: checking")) for path in paths]
    folder = Path(root, "unpacked", digest(hashes)[:12])
    for path in paths:
        target = folder / without_suffix(path.name)
        with locked(target):
            if not target.is_dir():
                extract(path, target)
    return folder


def has_suffix(path: Path) -> bool:
    """Whether a file is called like an archive, and not hidden: macOS puts ``._NAME.zip`` beside ``NAME.zip``."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def without_suffix(name: str) -> str:
    """Name of an archive without ``.zip``, ``.tar.gz`` and the like."""
    suffix = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]


class _TarInfo(tarfile.TarInfo):
    """Refuses headers that would fill the memory: the reader takes in those of long names and attributes as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in tarfile.REGULAR_TYPES and info.size > LARGEST_HEADER:
            raise BadArchiveError(f"a header of {info.size} bytes, expected {LARGEST_HEADER} at most")
        return info


@contextmanager
def _made_as_a_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder beside, which becomes the folder if nothing goes wrong, and is removed otherwise."""
    partial = folder.with_name(f".{folder.name}.partial")
    # What a killed run left.
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
        # A tar file that ends in a zip file would pass for one.
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
        # What extractfile returns, which may be None for what is neither file nor folder.
        yield _Member(info.name, info.size, info.isdir(), partial(tarfile.ExFileObject, file, info))
    # The checksum of a compressed archive is behind the last member.
    while file.fileobj.read(1 << 20):
        pass


def _check_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise BadArchiveError(f"{path}: {name!r} leads out of the folder that it should be unpacked to")


def _checked(path: Path, members: Iterator[_Member], limit: int) -> list[_Member]:
    """Files that are to be written; stops at the first member that is not right."""
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
        # Names that differ in case alone are one file on some disks.
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
    # Python's readers check little: a ValueError is, for one, a name that is no UTF-8, an IndexError
    # an empty name.
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
        *(EOFError, RuntimeError, ValueError, LookupError, OverflowError),
    ) as error:
        raise BadArchiveError(f"{path}: damaged, or no zip or tar archive: {error}") from error
    except OSError as error:
        # bz2 and gzip say so of damaged data, without an error number; and damaged tables lead to before the beginning.
        if error.errno in (None, errno.EINVAL):
            raise BadArchiveError(f"{path}: damaged: {error}") from error
        raise
