"""Verifying that a prepared set is unchanged."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from tqdm import tqdm

from panet_plugin.data.image_reader import READABLE, BadImageError, files_in
from panet_plugin.data.images import PNG_COMPRESSION
from panet_plugin.data.lmdb_reader import LmdbRecords, count_records
from panet_plugin.data.manifest import FORMAT, digest, read_json, sha256_of
from panet_plugin.data.parallel import in_threads
from panet_plugin.data.shards import Shard, sets_in_shards

logger = logging.getLogger(__name__)

# Maximum number of damaged images that are named.
EXAMPLES = 5
UNFINISHED = "{}: the preparation was interrupted; run the same command to finish it"


def verify_root(root: str | os.PathLike, workers: int | None = None) -> list[str]:
    """Compare all prepared sets in a folder with their manifests.

    Every image is read and hashed, and its internal checksums are verified to name the damaged ones.

    Args:
        root: Folder of ``NAME.json`` and the files that these list.
        workers: Number of threads; the number of usable cores by default.

    Returns:
        The problems, one sentence each.

    Raises:
        FileNotFoundError: The folder contains no prepared set.
    """
    root = Path(root)
    found = {path: read_json(path) for path in sorted(root.glob("*.json"))}
    manifests = {path: manifest for path, manifest in found.items() if manifest and "outputs" in manifest}
    recipes = [read_json(path) for path in sorted(root.glob(".*.partial/recipe.json"))]
    unfinished = [root / f"{recipe['name']}.json" for recipe in recipes if recipe]
    unfinished = [path for path in unfinished if path not in manifests]
    if not manifests and not unfinished:
        raise FileNotFoundError(f"{root} contains no prepared set (NAME.json that lists outputs)")
    problems = []
    for path, manifest in manifests.items():
        problems += _verify_set(path, manifest, workers)
    problems += [UNFINISHED.format(path) for path in unfinished]
    for name, shards in sets_in_shards(root):
        problems += _verify_division(root, name, shards, found)
    return problems


def _verify_division(root: Path, name: str, shards: list[Shard], found: dict[Path, dict[str, Any] | None]) -> list[str]:
    """Return the problems of a sharded set, except those of its shards."""
    if {shard.of for shard in shards} != {shards[0].of}:
        return [f"{root / name}: shards of several divisions: {', '.join(map(str, shards))}"]
    missing = [shard for shard in shards[0].all() if shard not in shards]
    if missing:
        return [f"{root / f'{name}-{shard}.json'}: missing: this shard was not prepared" for shard in missing]
    paths = [root / f"{name}-{shard}.json" for shard in shards]
    outputs = {root / output for path in paths for output in (found.get(path) or {"outputs": {}})["outputs"]}
    strays = {path for folder in {output.parent for output in outputs} for path in folder.glob("*.lmdb")} - outputs
    problems = [f"{path}: no manifest lists this shard" for path in sorted(strays)]
    listed = (found.get(root / f"{name}.json") or {}).get("shards")
    if all(path.is_file() for path in paths) and listed != {path.name: sha256_of(path) for path in paths}:
        problems.append(f"{root / name}.json: missing, or of other shards; preparing any shard again writes it")
    return problems


def _verify_set(path: Path, manifest: dict[str, Any], workers: int | None) -> list[str]:
    recipe = manifest["recipe"]
    if recipe is None:
        return [UNFINISHED.format(path)]
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
            logger.info("%s: %d images, all unchanged", place, expected["count"])
        problems += found
    lists = {tuple(found) for found in keys.values()}
    if len(lists) > 1:
        problems.append(f"{path}: {', '.join(keys)} have different keys")
    return problems + _verify_sources(path.parent, recipe, workers)


def _verify_lmdb(path: Path, expected: dict[str, Any], workers: int | None) -> tuple[list[str], list[str]]:
    """Return the problems of an LMDB, and its keys."""
    try:
        count_records(path)  # for its errors
        records = LmdbRecords(path)
        images = ((f"{key.decode(errors='replace')}.png", records[key]) for key in records)
        checked = _check(path, images, expected, workers)
    except BadImageError as error:
        return [str(error)], []
    except OSError as error:
        return [f"{path}: damaged: {error}"], []
    problems = _compare(path, expected, checked)
    meta_info = path / "meta_info.txt"
    listed = meta_info.read_text(errors="replace").splitlines() if meta_info.is_file() else []
    # Damaged images are reported already.
    if len(listed) != len(checked) or not {image.line for image in checked if image.line} <= {*listed}:
        problems.append(f"{meta_info}: does not list the images of the LMDB")
    return problems, [image.name for image in checked]


def _verify_folder(path: Path, expected: dict[str, Any], workers: int | None) -> list[str]:
    images = ((file.name, file.read_bytes()) for file in sorted(files_in(path)))
    return _compare(path, expected, _check(path, images, expected, workers))


class _Checked(NamedTuple):
    """An image with its line in meta_info.txt, empty if it is damaged."""

    name: str
    sha256: str
    line: str


def _check(
    path: Path, images: Iterable[tuple[str, bytes]], expected: dict[str, Any], workers: int | None
) -> list[_Checked]:
    def check(item: tuple[str, bytes]) -> _Checked:
        name, content = item
        return _Checked(name, hashlib.sha256(content).hexdigest(), _meta_line(name, content))

    results = in_threads(check, images, workers)
    return list(tqdm(results, f"{path.name}: checking", expected["count"], unit="image", leave=False))


def _meta_line(name: str, content: bytes) -> str:
    try:
        with Image.open(BytesIO(content), formats=READABLE) as image:
            channels = 1 if image.mode in ("1", "L") or image.mode.startswith("I") else 3
            line = f"{name} ({image.height},{image.width},{channels}) {PNG_COMPRESSION}"
            # PNG files carry checksums.
            image.verify()
            return line
    except Exception:
        # Whatever a decoder makes of damaged bytes.
        return ""


def _compare(path: Path, expected: dict[str, Any], checked: list[_Checked]) -> list[str]:
    if len(checked) != expected["count"]:
        return [f"{path}: {len(checked)} images, expected {expected['count']}"]
    if digest((image.name, image.sha256) for image in checked) == expected["sha256"]:
        return []
    damaged = [image.name for image in checked if not image.line]
    return [f"{path}: images differ from those that were made" + (f"; damaged: {_some(damaged)}" if damaged else "")]


def _verify_sources(root: Path, recipe: dict[str, Any], workers: int | None) -> list[str]:
    """Return the problems of images that were already in place; those elsewhere are not part of the set."""
    problems = []
    for output, number in recipe["in_place"].items():
        files = [(root / output / hashes[number][0], hashes[number][1]) for hashes in recipe["sources"].values()]
        results = in_threads(lambda file: file[0].is_file() and sha256_of(file[0]) == file[1], files, workers)
        done = tqdm(results, f"{output}: checking", len(files), unit="image", leave=False)
        wrong = [path.name for (path, _), right in zip(files, done, strict=True) if not right]
        if wrong:
            problems.append(f"{root / output}: changed or missing since the set was made: {_some(wrong)}")
        known = {path for path, _ in files}
        new = sorted(path.name for path in files_in(root / output) if path not in known) if recipe["whole"] else []
        if new:
            problems.append(f"{root / output}: new since the set was made: {_some(new)}")
        if not wrong and not new:
            logger.info("%s: %d images, all unchanged", root / output, len(files))
    return problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", ..." if len(names) > EXAMPLES else "")
