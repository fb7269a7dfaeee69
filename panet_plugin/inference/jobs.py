"""From the user's inputs to pairs of files to read and to write."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from panet_plugin.data.image_reader import SUFFIXES, list_images
from panet_plugin.data.image_writer import FORMATS
from panet_plugin.errors import PanetError


class Job(NamedTuple):
    """An image to restore.

    Attributes:
        source: The file to read.
        target: The file to write.
    """

    source: Path
    target: Path


class Failure(NamedTuple):
    """An input that was not restored.

    Attributes:
        name: A file, or an input of the command line.
        reason: One sentence.
    """

    name: str
    reason: str


class JobError(PanetError, ValueError):
    """The results cannot be written as requested; nothing has been done."""


def find_jobs(
    inputs: Iterable[str], out: Path, suffix: str | None = None, lines: Iterable[str] = ()
) -> tuple[list[Job], list[Failure]]:
    """Find the images and determine the paths of their results.

    Args:
        inputs: Files; folders, which are searched recursively; patterns such as ``shots/**/*.png``; ``-`` for
            ``lines``.
        out: A folder, in which results have the paths of their images relative to the input folder; or, for a single
            input file, a file with a suffix of :data:`~panet_plugin.inference.FORMATS`.
        suffix: Suffix of the results; None keeps that of each image, or uses ``.png`` if it cannot be written.
        lines: More inputs, one per line.

    Returns:
        The jobs without duplicates, and the inputs without images.

    Raises:
        JobError: If two images would have the same result, a result would replace an input, or there are several
            images for a single file.
    """
    found: list[tuple[Path, Path]] = []
    failures: list[Failure] = []
    for text in _with_lines(inputs, lines):
        images = list(_images(text, out))
        found += images
        if not images:
            failures.append(Failure(text, _nothing(text)))
    unique = list(dict.fromkeys(found))
    if out.suffix.lower() in FORMATS and not out.is_dir():
        if len(unique) > 1 or any(Path(text).is_dir() for text in inputs):
            raise JobError(f"{out}: expected a folder for several images, got the name of a file")
        if suffix and FORMATS[suffix] != FORMATS[out.suffix.lower()]:
            raise JobError(f"{out}: expected a name that ends in {suffix}")
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


def _images(text: str, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the images of an input, and their paths relative to the output folder."""
    path = Path(text)
    if path.is_dir():
        for file in list_images(path, recursive=True):
            # The output folder may be inside the input folder.
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
        return f"no images in this folder ({', '.join(sorted(SUFFIXES))})"
    return "no file matches this pattern" if glob.has_magic(text) else "no such file or folder"


def _suffix_of(name: Path) -> str:
    return name.suffix if name.suffix.lower() in FORMATS else ".png"


def _must_not_collide(jobs: list[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    targets: dict[Path, Path] = {}
    for job in jobs:
        target = job.target.resolve()
        if target in sources:
            raise JobError(f"{job.target}: the result of {job.source} would replace an image; choose another -o")
        if (other := targets.setdefault(target, job.source)).resolve() != job.source.resolve():
            raise JobError(
                f"{other} and {job.source} would both be written to {job.target}; restore them to different folders"
            )
