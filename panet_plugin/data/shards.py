"""Sharded sets: a folder of LMDBs, each made by its own process, instead of one LMDB.

``NAME_HR.lmdb/3-of-8.lmdb`` is the third of eight, with the same layout as any LMDB of ours. An image and its
sub-images belong to one shard, chosen by the image's position in the set. Each shard has a manifest,
``ROOT/NAME-3-of-8.json``; when all exist, ``ROOT/NAME.json`` lists them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from panet_plugin.data.image_reader import BadImageError
from panet_plugin.data.lmdb_reader import count_records
from panet_plugin.data.manifest import read_json, sha256_of, to_json
from panet_plugin.files import locked, write_bytes

logger = logging.getLogger(__name__)


class Shard(NamedTuple):
    """One shard of a set; its text is ``3-of-8``.

    Attributes:
        number: From 1.
        of: Number of shards.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse ``3/8``; ValueError if that is not a valid shard."""
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise ValueError(f"expected a shard such as 3/8, of 1/8 to 8/8, got {text!r}")
        return shard

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    def share(self, items: list[Any]) -> list[Any]:
        """Return every ``of``-th item, starting with its own: neighbors, often similar, go to different shards."""
        return items[self.number - 1 :: self.of]

    def all(self) -> list[Shard]:
        """Return the shards of the set."""
        return [Shard(number, self.of) for number in range(1, self.of + 1)]


def shard_paths(path: Path) -> list[Path]:
    """Return the LMDBs at a path: the LMDB itself or its shards; empty if there are none.

    Raises:
        BadImageError: If shards are missing or truncated, or belong to different divisions.
    """
    if (path / "meta_info.txt").is_file():
        return [path]
    found = _shards_in(path, r"(\d+)-of-(\d+)\.lmdb")
    if not found:
        return []
    first, last = found[0], found[-1]
    if first.of != last.of:
        raise BadImageError(
            f"{path}: contains {first}.lmdb and {last}.lmdb, expected shards of one division: remove those of the other"
        )
    if missing := [shard for shard in first.all() if shard not in found]:
        raise BadImageError(
            f"{path / f'{missing[0]}.lmdb'}: no such shard, {len(missing)} of {first.of} are missing: "
            f"the command that prepared the others makes it with --shard {missing[0].number}/{first.of}"
        )
    paths = [path / f"{shard}.lmdb" for shard in found]
    for place in paths:
        listed = place / "meta_info.txt"
        if not listed.is_file():
            raise BadImageError(f"{listed}: missing, the shard is incomplete")
        lines = listed.read_bytes().count(b"\n")
        if (records := count_records(place)) != lines:
            raise BadImageError(f"{place}: {records} images, expected {lines} as listed in its meta_info.txt")
    return paths


def shards_of(root: Path, name: str) -> list[Shard]:
    """Return the shards of a set that have a manifest or were begun."""
    return _shards_in(root, rf"\.?{re.escape(name)}-(\d+)-of-(\d+)\.(?:json|partial)")


def sets_in_shards(root: Path) -> Iterator[tuple[str, list[Shard]]]:
    """Yield the name and :func:`shards_of` of every sharded set in a folder."""
    pattern = re.compile(r"\.?(.+)-\d+-of-\d+\.(?:json|partial)")
    for name in sorted({found[1] for path in root.iterdir() if (found := pattern.fullmatch(path.name))}):
        yield name, shards_of(root, name)


def _shards_in(folder: Path, pattern: str) -> list[Shard]:
    if not folder.is_dir():
        return []
    found = (re.fullmatch(pattern, path.name) for path in folder.iterdir())
    # The smallest division first.
    return sorted({Shard(int(match[1]), int(match[2])) for match in found if match}, key=lambda shard: shard[::-1])


def claim(root: Path, name: str, shard: Shard | None, recipe: dict[str, Any], outputs: Sequence[str]) -> None:
    """Check that a shard, or an unsharded set, matches the existing files of the set, and reserve it.

    Raises:
        ValueError: If the set has another division, other images or other settings.
        FileExistsError: If there is an unsharded set or LMDB with this name.
    """
    with locked(root / name):
        found = shards_of(root, name)
        if other := next((other for other in found if not shard or other.of != shard.of), None):
            raise ValueError(
                f"{root / name} has {other.of} shards: use --shard 1/{other.of} and so on, "
                f"or remove the files that begin with {name}"
            )
        if not shard:
            return
        whole = read_json(root / f"{name}.json")
        if whole and "shards" not in whole:
            raise FileExistsError(f"{root / name}.json: an unsharded set: remove it, or choose another root or name")
        for output in outputs:
            lmdb = (root / output).parent
            if (lmdb / "data.mdb").exists():
                raise FileExistsError(f"{lmdb} is an LMDB, expected a folder of shards: move it away")
        for other in found:
            path = root / f"{name}-{other}.json"
            theirs = (read_json(path) or {}).get("recipe")
            if theirs is None:
                path = root / f".{name}-{other}.partial" / "recipe.json"
                theirs = read_json(path)
            if other == shard or theirs is None:
                continue
            own = ("name", "sources", "in_place", "shard")
            if changed := [key for key in recipe if key not in own and theirs.get(key) != recipe[key]]:
                key = changed[0]
                raise ValueError(
                    f"{path}: {key} is {theirs.get(key)}, expected {recipe[key]}: all shards of a set need the "
                    f"same images and settings; to change these, remove the files that begin with {name}"
                )
        (root / f".{name}-{shard}.partial").mkdir(exist_ok=True)


def list_shards(root: Path, name: str, shard: Shard) -> bool:
    """Write the manifest of a set when all its shards have theirs; until then it does not exist.

    Returns:
        Whether the set is complete.
    """
    path = root / f"{name}.json"
    with locked(root / name):
        paths = [root / f"{name}-{one}.json" for one in shard.all()]
        manifests = [read_json(one) or {} for one in paths]
        missing = [
            f"{one.number}/{one.of}"
            for one, manifest in zip(shard.all(), manifests, strict=True)
            if not manifest.get("recipe")
        ]
        if missing:
            path.unlink(missing_ok=True)
            logger.info("%s: shards left to prepare: %s", root / name, ", ".join(missing))
            return False
        content = to_json({"shards": {one.name: sha256_of(one) for one in paths}})
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content)
        logger.info("%s: all %d shards are prepared", root / name, shard.of)
        return True
