"""Building a set atomically: it is complete or absent, even if the process is killed.

Everything is written to a hidden folder ``ROOT/.NAME.partial`` and moved into place when it is complete; the manifest
``ROOT/NAME.json`` comes last. The next run continues a killed one if it has the same images and settings, and discards
its files otherwise.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from panet_plugin.data.manifest import count_images, read_json, to_json
from panet_plugin.files import locked, write_bytes

logger = logging.getLogger(__name__)


def make_set(
    root: Path,
    recipe: dict[str, Any],
    outputs: Sequence[str],
    sources: Sequence[Path],
    build: Callable[[Path], tuple[dict[str, Any], dict[str, str]]],
) -> bool:
    """Build a set, unless a complete one with the same recipe exists.

    Args:
        root: Destination; created if missing.
        recipe: Everything that determines the result: ``name``; ``sources``, the names and hashes of each image's
            files by its key; ``in_place``, for outputs that exist already, the index of the source files that they
            hold; ``whole``, whether they hold nothing else; and settings.
        outputs: Folders and LMDBs to make, relative to the root.
        sources: Folders that are read.
        build: Fills a folder with the outputs, continuing from what it finds there, and returns the :func:`summary` of
            each and, by name, the reasons for skipped images.

    Returns:
        Whether anything was built.

    Raises:
        FileExistsError: ``root`` contains an output that this function did not make.
        ValueError: An output would replace a source.
    """
    name = recipe["name"]
    path = root / f"{name}.json"
    with locked(root / name):
        building = root / f".{name}.partial"
        manifest = read_json(path)
        reason = _why_not_current(root, manifest, recipe)
        if manifest and reason is None:
            logger.info("%s: nothing to do, %d images are prepared", root / name, len(recipe["sources"]))
            _report_skipped(manifest["skipped"])
            shutil.rmtree(building, ignore_errors=True)
            return False
        logger.info("%s: %s", root / name, reason)

        if read_json(building / "recipe.json") != recipe:
            # In this order: the rest of a folder without a recipe is never continued.
            (building / "recipe.json").unlink(missing_ok=True)
            if building.exists():
                shutil.rmtree(building)
        finished = read_json(building / "manifest.json")
        if finished is None:
            _check_nothing_is_lost(path, outputs, recipe, manifest, sources)
            write_bytes(building / "recipe.json", to_json(recipe))
            made, skipped = build(building)
            _report_skipped(skipped)
            finished = {"recipe": recipe, "skipped": skipped, "outputs": made}
            write_bytes(building / "manifest.json", to_json(finished))
        _publish(path, building, finished, manifest)
    return True


def _why_not_current(root: Path, manifest: dict[str, Any] | None, recipe: dict[str, Any]) -> str | None:
    """Return why the set must be built; None if it exists and is complete."""
    if manifest is None:
        return "preparing"
    old = manifest["recipe"]
    if old is None:
        return "continuing an interrupted preparation"
    changed = [key for key in recipe if old.get(key) != recipe[key]]
    if "format" in changed:
        return "preparing again: made by another version of this program"
    if "sources" in changed:
        before, now = old["sources"], recipe["sources"]
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        examples = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
        return f"preparing again: {len(keys)} images are new, changed or missing ({examples})"
    if changed:
        changes = ", ".join(f"{key} was {old.get(key)}, is {recipe[key]}" for key in changed)
        return f"preparing again: {changes}"
    for path, output in manifest["outputs"].items():
        if count_images(root / path) != output["count"]:
            return f"preparing again: {root / path} is incomplete, expected {output['count']} images"
    return None


def _check_nothing_is_lost(
    path: Path,
    outputs: Sequence[str],
    recipe: dict[str, Any],
    manifest: dict[str, Any] | None,
    sources: Sequence[Path],
) -> None:
    """Refuse to replace or remove files that this module did not make or is about to read."""
    ours = set(manifest["outputs"] if manifest else ())
    read = {folder.resolve() for folder in sources}
    for output in sorted(ours.union(outputs).difference(recipe["in_place"])):
        place = path.parent / output
        if place.resolve() in read:
            raise ValueError(f"{place} would be replaced and cannot be the source: choose another name")
        if output not in ours and place.exists():
            raise FileExistsError(
                f"{place} exists and {path} does not list it: move it away, choose another root or name, or use it as "
                "the source"
            )


def _publish(path: Path, building: Path, manifest: dict[str, Any], old_manifest: dict[str, Any] | None) -> None:
    """Move the outputs into place, the manifest last; this may be interrupted and repeated at any point."""
    outputs, old_outputs = manifest["outputs"], (old_manifest or {"outputs": {}})["outputs"]
    # Until all is moved, the manifest in place only lists which outputs are ours.
    (building / "claim.json").write_bytes(to_json({"recipe": None, "outputs": old_outputs | outputs}))
    (building / "claim.json").replace(path)
    # The records refer to files that are about to be moved.
    for folder in (building / "records", building / "discarded"):
        shutil.rmtree(folder, ignore_errors=True)

    for number, output in enumerate(old_outputs | outputs):
        built, place = building / output, path.parent / output
        obsolete = output not in outputs and output not in manifest["recipe"]["in_place"]
        if place.exists() and (built.exists() or obsolete):
            (building / "discarded").mkdir(exist_ok=True)
            place.replace(building / "discarded" / str(number))
        if output in outputs and built.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            built.replace(place)
    (building / "manifest.json").replace(path)
    shutil.rmtree(building)


def _report_skipped(skipped: dict[str, str]) -> None:
    for reason in skipped.values():
        logger.warning("skipped: %s", reason)
