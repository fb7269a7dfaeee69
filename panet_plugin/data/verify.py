"""Whether a prepared set is still what it was when it was made."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import lmdb
from PIL import Image
from tqdm import tqdm

from panet_plugin.data.images import PNG_COMPRESSION
from panet_plugin.data.manifest import FORMAT, digest, read_json, sha256_of
from panet_plugin.data.parallel import in_threads

logger = logging.getLogger(__name__)

# How many damaged images are named.
EXAMPLES = 5


def verify_root(root: str | os.PathLike, workers: int | None = None) -> list[str]:
    """Compare all prepared sets below a folder with their manifests.

    Every image is read and hashed; those of a set whose hash differs are decoded too, to name the damaged ones.

    Args:
        root: Folder of ``NAME.json`` and what these list.
        workers: Number of threads; the number of usable cores by default.

    Returns:
        What is wrong, one sentence each.

    Raises:
        FileNotFoundError: There is no prepared set.
    """
    root = Path(root)
    manifests = {path: read_json(path) for path in sorted(root.glob("*.json"))}
    manifests = {path: manifest for path, manifest in manifests.items() if "outputs" in manifest}
    if not manifests:
        raise FileNotFoundError(f"{root} holds no prepared set: no NAME.json that lists outputs")
    problems = []
    for path, manifest in manifests.items():
        problems += _verify_set(path, manifest, workers or os.cpu_count() or 1)
    return problems


def _verify_set(path: Path, manifest: dict[str, Any], workers: int) -> list[str]:
    recipe = manifest["recipe"]
    if recipe is None:
        return [f"{path}: the preparation was interrupted; the same command finishes it"]
    if recipe["format"] != FORMAT:
        return [f"{path}: made by another version of this program (format {recipe['format']}, expected {FORMAT})"]
    problems = []
    keys: dict[str, list[str]] = {}
    for output, expected in manifest["outputs"].items():
        place = path.parent / output
        if not place.is_dir():
            found = [f"{place}: missing"]
        elif place.suffix == ".lmdb":
            found, keys[output] = _verify_lmdb(place, expected, workers)
        else:
            found = _verify_folder(place, expected, workers)
        if not found:
            logger.info("%s: %d images, all as they were made", place, expected["count"])
        problems += found
    lists = {tuple(found) for found in keys.values()}
    if len(lists) > 1:
        problems.append(f"{path}: {', '.join(keys)} have different keys")
    return problems + _verify_sources(path.parent, recipe, workers)


def _verify_lmdb(path: Path, expected: dict[str, Any], workers: int) -> tuple[list[str], list[str]]:
    """What is wrong with an LMDB, and its keys."""
    problems, keys, lines = [], [], []

    def images() -> Iterator[tuple[str, bytes]]:
        with (
            lmdb.open(str(path), readonly=True, lock=False, readahead=True) as environment,
            environment.begin() as transaction,
        ):
            for key, content in transaction.cursor():
                yield f"{key.decode(errors='replace')}.png", content

    def check(item: tuple[str, bytes]) -> tuple[str, str, str]:
        name, content = item
        return name, hashlib.sha256(content).hexdigest(), _meta_line(name, content)

    hashes = []
    try:
        for name, sha256, line in _with_progress(in_threads(check, images(), workers), path, expected):
            hashes.append((name, sha256))
            keys.append(name)
            lines.append(line)
        problems = _compare(path, expected, hashes, images())
    except (lmdb.Error, OSError) as error:
        return [f"{path}: damaged: {error}"], keys
    meta_info = path / "meta_info.txt"
    if not meta_info.is_file() or sorted(meta_info.read_text().splitlines()) != sorted(lines):
        problems.append(f"{meta_info}: does not list the images of the LMDB")
    return problems, keys


def _meta_line(name: str, content: bytes) -> str:
    try:
        with Image.open(BytesIO(content)) as image:
            channels = 1 if image.mode in ("1", "L") or image.mode.startswith("I") else 3
            return f"{name} ({image.height},{image.width},{channels}) {PNG_COMPRESSION}"
    except Exception:
        # Whatever a decoder makes of damaged bytes: the hash tells already.
        return ""


def _verify_folder(path: Path, expected: dict[str, Any], workers: int) -> list[str]:
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    hashes = _with_progress(in_threads(lambda file: (file.name, sha256_of(file)), files, workers), path, expected)
    return _compare(path, expected, list(hashes), ((file.name, file.read_bytes()) for file in files))


def _compare(
    path: Path, expected: dict[str, Any], hashes: list[tuple[str, str]], images: Iterable[tuple[str, bytes]]
) -> list[str]:
    if len(hashes) != expected["count"]:
        return [f"{path}: {len(hashes)} images, expected {expected['count']}"]
    if digest(hashes) == expected["sha256"]:
        return []
    damaged = [name for name, content in images if not _decodes(content)]
    return [f"{path}: images are not those that were made" + (f"; damaged: {_some(damaged)}" if damaged else "")]


def _decodes(content: bytes) -> bool:
    try:
        with Image.open(BytesIO(content)) as image:
            image.load()
    except Exception:
        return False
    return True


def _verify_sources(root: Path, recipe: dict[str, Any], workers: int) -> list[str]:
    """What is wrong with pictures that were in place already; those elsewhere are no part of the set."""
    problems = []
    for output, number in recipe["in_place"].items():
        files = [(root / output / hashes[number][0], hashes[number][1]) for hashes in recipe["sources"].values()]
        results = in_threads(lambda file: file[0].is_file() and sha256_of(file[0]) == file[1], files, workers)
        results = tqdm(results, f"{output}: checking", len(files), unit="image", leave=False)
        wrong = [path.name for (path, _), right in zip(files, results, strict=True) if not right]
        if wrong:
            problems.append(f"{root / output}: changed or gone since the set was made: {_some(wrong)}")
        else:
            logger.info("%s: %d images, all as they were", root / output, len(files))
    return problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")


def _with_progress(results: Iterable[Any], path: Path, expected: dict[str, Any]) -> Iterator[Any]:
    return iter(tqdm(results, f"{path.name}: checking", expected["count"], unit="image", leave=False))
