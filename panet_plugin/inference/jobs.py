"""From what a user names to pairs of files: which picture becomes which."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from panet_plugin.data.pictures import SUFFIXES, list_pictures
from panet_plugin.errors import PanetError
from panet_plugin.inference.pictures import FORMATS


class Job(NamedTuple):
    """A picture to restore.

    Attributes:
        source: The file to read.
        target: The file to write.
    """

    source: Path
    target: Path


class Failure(NamedTuple):
    """What went wrong.

    Attributes:
        name: A file, or what was given on the command line.
        reason: A sentence.
    """

    name: str
    reason: str


class JobError(PanetError, ValueError):
    """Files that cannot be restored into those that are asked for; nothing has been done."""


def find_jobs(
    inputs: Iterable[str], out: Path, suffix: str | None = None, lines: Iterable[str] = ()
) -> tuple[list[Job], list[Failure]]:
    """Find the pictures and name their results.

    Args:
        inputs: Files; folders, whose pictures are found at any depth; patterns such as ``shots/**/*.png``; ``-`` for
            ``lines``.
        out: A folder, in which results have the names of their pictures, beneath the folder that was named; or, for one
            picture that was named itself, a file that ends as one of :data:`~panet_plugin.inference.FORMATS`.
        suffix: Of the results; None keeps that of each picture, or takes ``.png`` where it cannot be written.
        lines: More inputs, one each.

    Returns:
        The jobs, each once, and the inputs behind which there is no picture.

    Raises:
        JobError: If two pictures would become one file, a result would replace one of the pictures, or several pictures
            were to become a file.
    """
    found: list[tuple[Path, Path]] = []
    failures: list[Failure] = []
    for text in _with_lines(inputs, lines):
        pictures = list(_pictures(text, out))
        found += pictures
        if not pictures:
            failures.append(Failure(text, _nothing(text)))
    unique = list(dict.fromkeys(found))
    if out.suffix.lower() in FORMATS and not out.is_dir():
        if len(unique) > 1 or any(Path(text).is_dir() for text in inputs):
            raise JobError(f"{out}: several pictures need a folder, and this is the name of a file")
        if suffix and FORMATS[suffix] != FORMATS[out.suffix.lower()]:
            raise JobError(f"{out}: does not end in {suffix}")
        jobs = [Job(source, out) for source, _ in unique]
    else:
        jobs = [Job(source, out / name.with_suffix(suffix or _suffix_of(name))) for source, name in unique]
    _must_not_collide(jobs)
    return jobs, failures


def _with_lines(inputs: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    for text in inputs:
        if text == "-":
            yield from (line for line in (line.rstrip("\r\n") for line in lines) if line)
        else:
            yield text


def _pictures(text: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the pictures that an input stands for, and what they are called beneath the folder of the results."""
    path = Path(text)
    if path.is_dir():
        for file in list_pictures(path, recursive=True):
            # Results of the last run may be there.
            if out.resolve() == path.resolve() or out.resolve() not in file.resolve().parents:
                yield file, file.relative_to(path)
    elif path.exists():
        yield path, Path(path.name)
    else:
        for match in sorted(map(Path, glob.glob(text, recursive=True))):  # noqa: PTH207 - absolute ones too
            if match.is_file():
                yield match, Path(match.name)


def _nothing(text: str) -> str:
    if Path(text).is_dir():
        return f"no pictures in this folder ({', '.join(sorted(SUFFIXES))})"
    return "no file matches this pattern" if glob.has_magic(text) else "no such file or folder"


def _suffix_of(name: Path) -> str:
    return name.suffix if name.suffix.lower() in FORMATS else ".png"


def _must_not_collide(jobs: list[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    targets: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise JobError(f"{job.target}: the result of {job.source} would replace a picture; choose another -o")
        if (other := targets.setdefault(target, job.source)).resolve() != job.source.resolve():
            raise JobError(
                f"{other} and {job.source} would both become {job.target}; restore them into different folders"
            )
