"""Benchmark sets: found in any usual layout, and degraded as for the paper's tables."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from panet_plugin.data.archives import SUFFIXES as ARCHIVE_SUFFIXES
from panet_plugin.data.archives import has_suffix, unpack
from panet_plugin.data.build import make_set
from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.data.image_reader import BadImageError, list_images
from panet_plugin.data.images import encode_image, read_image
from panet_plugin.data.manifest import FORMAT, Entry, sha256_of, summary
from panet_plugin.data.parallel import in_threads
from panet_plugin.tasks import TASKS, Task

logger = logging.getLogger(__name__)

# Folders of clean images within that of a set, the most specific name first. The published figures were not measured
# on mod-12 crops, but these are better than nothing.
CLEAN_FOLDERS = ("HR", "GT", "original", "original_png", "refimgs", "images", "image_SRF_2", ".", "GTmod12")
# SelfExSR keeps LR and HR images in one folder.
SELFEXSR = re.compile(r"(?P<name>.+)_SRF_\d+_(?P<kind>HR|LR)")
DEPTH = 4


def prepare_benchmarks(
    root: str | os.PathLike,
    sources: Sequence[str | os.PathLike],
    names: Sequence[str] = tuple(BENCHMARKS),
    *,
    workers: int | None = None,
) -> dict[str, str]:
    """Write the clean images of benchmark sets and every degraded version used in the paper as PNG files.

    ``ROOT/SET/HR/NAME.png`` are the clean images, ``ROOT/SET/`` + :func:`input_path` the degraded ones.

    Args:
        root: Destination; each set has a manifest ``ROOT/SET.json``.
        sources: Folders and archives that hold the sets, each in a folder of its name (see
            :data:`panet_plugin.data.datasets.BENCHMARKS`). Archives are unpacked below ``ROOT/unpacked``.
        names: Sets to prepare.
        workers: Number of threads; the number of usable cores by default.

    Returns:
        The reason for each set that was not prepared: it is missing from the sources, or incomplete there.

    Raises:
        BadImageError: An image cannot be read, or two have the same name.
        BadArchiveError: An archive cannot be unpacked.
        FileExistsError: ``root`` contains a set with this name that this function did not make.
        OSError: A file cannot be read or written, or the disk is full.
        ValueError: A name is unknown.
    """
    root = Path(root)
    if unknown := sorted(set(names) - set(BENCHMARKS)):
        raise ValueError(f"known sets are {', '.join(BENCHMARKS)}, got {', '.join(unknown)}")
    paths = [*map(Path, sources)]
    for path in paths:
        if not path.is_dir() and not (path.is_file() and has_suffix(path)):
            raise NotADirectoryError(f"{path} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)})")
    places = [path if path.is_dir() else unpack([path], root) for path in paths]
    missing = {}
    for name in names:
        images = _find_images(name, places)
        if len(images) != BENCHMARKS[name].count:
            found = f"found {len(images)} in {next(iter(images.values())).parent}" if images else "found none"
            missing[name] = f"{BENCHMARKS[name].count} images expected, {found}"
            logger.warning("%s: %s", name, missing[name])
        else:
            _make_benchmark(root, name, images, workers)
    return missing


def benchmark_tasks(name: str) -> list[Task]:
    """Return all settings of all tasks for which a set is degraded."""
    return [
        TASKS[task](**settings)
        for task, shared in BENCHMARKS[name].tasks.items()
        for settings in TASKS[task].settings
        if shared.items() <= settings.items()
    ]


def input_path(task: Task, name: str) -> str:
    """Return the path of a degraded image in its set: ``LR_bicubic/X2/NAMEx2.png``, ``denoising/s50/NAME.png``."""
    if task.name == "super_resolution":
        return f"LR_bicubic/X{task.scale}/{name}x{task.scale}.png"
    return "/".join(filter(None, (task.name, task.level, f"{name}.png")))


def _find_images(name: str, places: Sequence[Path]) -> dict[str, Path]:
    """Return the clean images by name from the first folder with a complete set, or else from the most complete one."""
    names = {alias.casefold() for alias in (name, *BENCHMARKS[name].aliases)}
    best: dict[str, Path] = {}
    for place in places:
        for folder in _folders(place, DEPTH):
            # The folder of the set, or of a part of it: Set5_HR, Set5_SR.
            if re.sub(r"_(HR|SR|GT)$", "", folder.name).casefold() not in names:
                continue
            for within in CLEAN_FOLDERS:
                images = _clean_images(folder / within) if (folder / within).is_dir() else {}
                if len(images) == BENCHMARKS[name].count:
                    return images
                best = max(best, images, key=len)
    return best


def _folders(place: Path, depth: int) -> Iterator[Path]:
    yield place
    if depth:
        for path in sorted(place.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from _folders(path, depth - 1)


def _clean_images(folder: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in list_images(folder):
        selfexsr = SELFEXSR.fullmatch(path.stem)
        if selfexsr and selfexsr["kind"] == "LR":
            continue
        name = selfexsr["name"] if selfexsr else path.stem
        if name in images:
            raise BadImageError(f"{path} has the same name as {images[name].name}: remove one of them")
        images[name] = path
    return images


def _make_benchmark(root: Path, name: str, images: dict[str, Path], workers: int | None) -> None:
    folder = next(iter(images.values())).parent
    hr = f"{name}/HR"
    tasks = benchmark_tasks(name)
    inputs = [str(Path(name, input_path(task, "")).parent) for task in tasks]
    recipe = {
        "format": FORMAT,
        "name": name,
        "inputs": [task.describe() for task in tasks],
        "whole": True,
        "in_place": {hr: 0} if (root / hr).resolve() == folder.resolve() else {},
        "sources": {key: [[path.name, sha256_of(path)]] for key, path in images.items()},
    }

    def build(building: Path) -> tuple[dict[str, Any], dict[str, str]]:
        make = partial(_make_image, folder=building / name, tasks=tasks, write_clean=not recipe["in_place"])
        results = tqdm(in_threads(make, images.items(), workers), f"{name}: images", len(images), unit="image")
        contents: dict[str, list[Entry]] = {}
        for entries in results:
            for path, entry in entries.items():
                contents.setdefault(f"{name}/{path}", []).append(entry)
        return {path: summary(written) for path, written in sorted(contents.items())}, {}

    make_set(root, recipe, [hr, *inputs], [folder], build)


def _make_image(item: tuple[str, Path], folder: Path, tasks: Sequence[Task], write_clean: bool) -> dict[str, Entry]:
    """Write an image and its degraded versions; return their entries by folder."""
    name, path = item
    image = read_image(path, gray=None)
    entries = {}

    def write(where: str, pixels: Any) -> None:
        content = encode_image(pixels)
        target = folder / where
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        entries[str(Path(where).parent)] = Entry(target.name, sha256, pixels.shape)

    if write_clean:
        write(f"HR/{name}.png", image)
    for task in tasks:
        write(input_path(task, name), task.degrade_image(task.reference(image), name))
    return entries
