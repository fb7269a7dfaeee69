"""A folder of images -> the layout that the training configs of both frameworks know.

Everything is made in a hidden folder ``ROOT/.NAME.partial`` and moved into place when it is complete; the manifest
``ROOT/NAME.json`` comes last. What a killed run left there is taken up by the next one if it belongs to the same
pictures and settings, and thrown away otherwise.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from panet_plugin.data.images import BadImageError, encode_image, read_image
from panet_plugin.data.lmdb_writer import write_lmdb
from panet_plugin.degradations import imresize
from panet_plugin.files import write_bytes

logger = logging.getLogger(__name__)

# Of the files that this module writes; a manifest of another version is not taken for ours.
FORMAT = 1

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Layout:
    """Names of the folders and LMDBs of a prepared set, relative to its root.

    Args:
        name: Name of the set, such as ``DIV2K_train``.
        subimages: Whether the LMDBs hold sub-images or whole images.
    """

    name: str
    subimages: bool = False

    @property
    def _suffix(self) -> str:
        return "_sub" if self.subimages else ""

    @property
    def manifest(self) -> str:
        """What the set was made from and what it holds."""
        return f"{self.name}.json"

    @property
    def hr(self) -> str:
        """Folder of ``KEY.png``."""
        return f"{self.name}_HR"

    def lr(self, scale: int) -> str:
        """Folder of ``KEYx{scale}.png``."""
        return f"{self.name}_LR_bicubic/X{scale}"

    @property
    def hr_sub(self) -> str:
        """Folder of ``KEY_s001.png`` and so on."""
        return f"{self.hr}_sub"

    def lr_sub(self, scale: int) -> str:
        """Folder of the LR sub-images, of the same names as the HR ones."""
        return f"{self.lr(scale)}_sub"

    @property
    def hr_lmdb(self) -> str:
        """LMDB of the HR images or sub-images."""
        return f"{self.hr}{self._suffix}.lmdb"

    def lr_lmdb(self, scale: int) -> str:
        """LMDB of the LR images or sub-images, of the same keys as the HR one."""
        return f"{self.name}_LR_bicubic_X{scale}{self._suffix}.lmdb"

    def outputs(self, scales: Sequence[int]) -> list[str]:
        """All folders and LMDBs of images."""
        paths = [self.hr, self.hr_lmdb, *map(self.lr, scales), *map(self.lr_lmdb, scales)]
        return [*paths, self.hr_sub, *map(self.lr_sub, scales)] if self.subimages else paths


def prepare_set(
    hr_dir: str | os.PathLike,
    root: str | os.PathLike,
    name: str,
    *,
    scales: Sequence[int] = (2, 3, 4),
    lr_dir: str | os.PathLike | None = None,
    subimage: tuple[int, int] | None = (480, 240),
    skip_bad: bool = False,
    workers: int | None = None,
) -> bool:
    """Write HR and LR images, sub-images and LMDBs of a folder of images, as :class:`Layout` names them.

    HR images are cropped at the bottom and the right to a multiple of every scale. If the set is there and complete,
    made from the same pictures with the same settings, nothing is done. HR or LR images that are in place already
    (``hr_dir`` is ``root/NAME_HR``, ``lr_dir`` is ``root/NAME_LR_bicubic``) stay there untouched.

    Args:
        hr_dir: Folder whose files are all images; sub-folders and hidden files are not looked at.
        root: Where the set goes; made if missing.
        name: Name of the set, such as ``DIV2K_train``.
        scales: Whole factors between LR and HR.
        lr_dir: Folder of given LR images, ``X2/0001x2.png`` or ``X2/0001.png``; with one scale the ``X2`` may be left
            out. Without it, the LR images are made by MATLAB's bicubic.
        subimage: Side and step of the HR sub-images in pixels, multiples of every scale; the last one of a row or
            column is moved inwards to end at the border, and an image smaller than the side gives a single one.
            None: no sub-images, the LMDBs hold the whole images.
        skip_bad: Leave out images that cannot be used, and list them, instead of stopping at the first.
        workers: Number of threads; the number of usable cores by default.

    Returns:
        Whether anything was made.

    Raises:
        BadImageError: An image cannot be read or is too small, its LR is missing or of another size, or two images
            have the same name.
        FileExistsError: There is a folder of such a name under ``root`` that was not made by this function.
        NotADirectoryError: ``hr_dir`` or ``lr_dir`` is no folder.
        ValueError: Scales or sub-image sizes that do not work, or no image at all.
    """
    scales = sorted(set(scales))
    _check_settings(name, scales, subimage)
    root = Path(root)
    layout = Layout(name, subimage is not None)
    folders = _source_folders(Path(hr_dir), None if lr_dir is None else Path(lr_dir), scales)
    sources = _find_sources(folders)
    in_place = _folders_in_place(root, layout, folders)
    workers = workers or os.cpu_count() or 1
    recipe = {
        "format": FORMAT,
        "name": name,
        "scales": scales,
        "subimage": None if subimage is None else list(subimage),
        "lr": "bicubic" if lr_dir is None else "given",
        "in_place": in_place,
        "skip_bad": skip_bad,
        "sources": _hash_sources(sources, name, workers),
    }

    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{name}.lock"):
        building = root / f".{name}.partial"
        manifest = _read_json(root / layout.manifest)
        reason = _why_not_current(root, manifest, recipe)
        if reason is None:
            logger.info("%s: nothing to do, %d images are prepared", root / name, len(sources))
            _report_skipped(manifest["skipped"])
            shutil.rmtree(building, ignore_errors=True)
            return False
        logger.info("%s: %s", root / name, reason)

        if _read_json(building / "recipe.json") != recipe:
            # In this order: what is left of a folder without a recipe is never taken up.
            (building / "recipe.json").unlink(missing_ok=True)
            if building.exists():
                shutil.rmtree(building)
        if not (building / "manifest.json").exists():
            _check_nothing_is_lost(root, layout, recipe, manifest, folders)
            write_bytes(building / "recipe.json", _json(recipe))
            _build(building, sources, layout, recipe, workers)
        _publish(root, building, layout, manifest)
    return True


# Settings and sources


@dataclass(frozen=True)
class _Source:
    """An HR file, the key of its image, and its given LR files by scale (none if they are to be made)."""

    key: str
    hr: Path
    lr: dict[int, Path]


def _check_settings(name: str, scales: list[int], subimage: tuple[int, int] | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"the name of a set may hold letters, digits, '_' and '-' only, got {name!r}")
    if not scales or any(scale != int(scale) or scale < 2 for scale in scales):
        raise ValueError(f"scales must be whole numbers above 1, got {scales}")
    multiple = math.lcm(*scales)
    if subimage is not None and any(size < 1 or size % multiple for size in subimage):
        raise ValueError(f"sub-image size and step must be multiples of {multiple} for scales {scales}, got {subimage}")


def _key(path: Path) -> str:
    """Name of an image in folders and LMDBs; what the readers of LMDB keys would stumble over becomes ``+hex+``."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"+{ord(match[0]):x}+", path.stem)


def _list_images(folder: Path) -> dict[str, Path]:
    """Files of a folder by stem, in the order of their keys."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder of images")
    images: dict[str, Path] = {}
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for path in sorted(files, key=lambda path: (_key(path), path.name)):
        if path.stem in images:
            raise BadImageError(f"{path} has the same name as {images[path.stem].name}: rename one of them")
        images[path.stem] = path
    return images


def _source_folders(hr_dir: Path, lr_dir: Path | None, scales: list[int]) -> dict[int, Path]:
    """Source folder of every scale; 1 is HR."""
    folders = {1: hr_dir}
    for scale in scales if lr_dir is not None else ():
        nested = lr_dir / f"X{scale}"
        folders[scale] = nested if nested.is_dir() or len(scales) > 1 else lr_dir
    return folders


def _folders_in_place(root: Path, layout: Layout, folders: dict[int, Path]) -> list[str]:
    """Those folders of the layout that are source folders."""
    names = {scale: layout.hr if scale == 1 else layout.lr(scale) for scale in folders}
    return [names[scale] for scale in folders if (root / names[scale]).resolve() == folders[scale].resolve()]


def _find_sources(folders: dict[int, Path]) -> list[_Source]:
    hr_files = _list_images(folders[1])
    if not hr_files:
        raise ValueError(f"{folders[1]} holds no images")
    lr_files: dict[str, dict[int, Path]] = {stem: {} for stem in hr_files}
    for scale, folder in folders.items():
        if scale == 1:
            continue
        found = _list_images(folder)
        for stem in hr_files:
            path = found.pop(f"{stem}x{scale}", None) or found.pop(stem, None)
            if path is None:
                raise BadImageError(f"{hr_files[stem]} has no LR image {stem}x{scale} or {stem} in {folder}")
            lr_files[stem][scale] = path
        if found:
            names = ", ".join(path.name for path in found.values())
            raise BadImageError(f"{folder} holds LR images that have no HR image in {folders[1]}: {names}")
    return [_Source(_key(path), path, lr_files[stem]) for stem, path in hr_files.items()]


def _hash_sources(sources: list[_Source], name: str, workers: int) -> dict[str, Any]:
    """SHA-256 of every source file, so that changed pictures are noticed and moved ones are not."""

    def digest(source: _Source) -> list[str]:
        hashes = []
        for path in (source.hr, *source.lr.values()):
            hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
        return hashes

    done = _in_threads(digest, sources, workers)
    done = tqdm(done, f"{name}: checking sources", len(sources), unit="image", leave=False)
    return {source.key: hashes for source, hashes in zip(sources, done, strict=True)}


# Building


def _build(building: Path, sources: list[_Source], layout: Layout, recipe: dict[str, Any], workers: int) -> None:
    """Fill the folder ``building``, taking up what a killed run left there, and write its manifest last."""
    make = partial(_make_image, building=building, layout=layout, recipe=recipe)
    records = tqdm(_in_threads(make, sources, workers), f"{layout.name}: images", len(sources), unit="image")
    skipped = {}
    contents: dict[str, list[_Entry]] = {}
    for source, record in zip(sources, records, strict=True):
        if "skipped" in record:
            skipped[source.hr.name] = record["skipped"]
        for folder, entries in record.get("written", {}).items():
            contents.setdefault(folder, []).extend(_Entry(*entry) for entry in entries)
    _report_skipped(skipped)
    if not contents:
        raise ValueError(f"{layout.name}: none of the {len(sources)} images can be used")

    scales = recipe["scales"]
    hr, lr = (layout.hr_sub, layout.lr_sub) if layout.subimages else (layout.hr, layout.lr)
    packed = {layout.hr_lmdb: hr} | {layout.lr_lmdb(scale): lr(scale) for scale in scales}
    outputs = {folder: {"count": len(entries), "sha256": _digest(entries)} for folder, entries in contents.items()}
    outputs |= {path: outputs[folder] for path, folder in packed.items()}
    for path, folder in packed.items():
        if not (building / path).exists():
            write_lmdb(building / path, _stored_images(building / folder, contents[folder], path))
    outputs = {path: output for path, output in outputs.items() if path not in recipe["in_place"]}
    write_bytes(building / "manifest.json", _json({"recipe": recipe, "skipped": skipped, "outputs": outputs}))


class _Entry(NamedTuple):
    """An image written to a folder."""

    key: str
    name: str
    sha256: str
    shape: tuple[int, int, int]


def _make_image(source: _Source, building: Path, layout: Layout, recipe: dict[str, Any]) -> dict[str, Any]:
    """Write all that belongs to one source image, then a record of it; do nothing if the record is there."""
    record_path = building / "records" / f"{source.key}.json"
    record = _read_json(record_path)
    if record is None:
        try:
            hr, lr = _load_pair(source, recipe["scales"])
        except BadImageError as error:
            if not recipe["skip_bad"]:
                raise
            record = {"skipped": str(error)}
        else:
            record = {"written": _write_pair(source.key, hr, lr, building, layout, recipe)}
        write_bytes(record_path, _json(record))
    return record


def _load_pair(source: _Source, scales: list[int]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """HR image cropped to a multiple of all scales, and its LR images, read or made."""
    hr = read_image(source.hr)
    full = hr.shape[:2]
    multiple = math.lcm(*scales)
    height, width = (side // multiple * multiple for side in full)
    if not height or not width:
        raise BadImageError(f"{source.hr}: {full[0]}x{full[1]} pixels, expected at least {multiple}x{multiple}")
    hr = hr[:height, :width]
    lr = {}
    for scale in scales:
        if not source.lr:
            lr[scale] = imresize(hr, output_shape=(height // scale, width // scale))
            continue
        given = read_image(source.lr[scale])
        # LR of an HR whose sides are no multiple of the scale was rounded one way or the other.
        if any(
            side not in (whole // scale, -(-whole // scale)) for side, whole in zip(given.shape, full, strict=False)
        ):
            raise BadImageError(
                f"{source.lr[scale]}: {given.shape[0]}x{given.shape[1]} pixels, expected "
                f"{full[0] // scale}x{full[1] // scale} for x{scale} of {source.hr.name}"
            )
        lr[scale] = given[: height // scale, : width // scale]
    return hr, lr


def _write_pair(
    key: str,
    hr: np.ndarray,
    lr: dict[int, np.ndarray],
    building: Path,
    layout: Layout,
    recipe: dict[str, Any],
) -> dict[str, list[_Entry]]:
    """Write an image and its sub-images in all sizes; return what was written, by folder."""
    written: dict[str, list[_Entry]] = {}

    def write(folder: str, key: str, name: str, image: np.ndarray) -> None:
        if folder in recipe["in_place"] and layout.subimages:
            # Neither to be moved into place nor to be packed.
            return
        content = encode_image(image)
        path = building / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written.setdefault(folder, []).append(_Entry(key, name, hashlib.sha256(content).hexdigest(), image.shape))

    write(layout.hr, key, f"{key}.png", hr)
    for scale, image in lr.items():
        write(layout.lr(scale), key, f"{key}x{scale}.png", image)
    if layout.subimages:
        for number, (top, left, bottom, right) in enumerate(_windows(hr.shape[:2], *recipe["subimage"]), 1):
            sub_key = f"{key}_s{number:03d}"
            write(layout.hr_sub, sub_key, f"{sub_key}.png", hr[top:bottom, left:right])
            for s, image in lr.items():
                window = image[top // s : bottom // s, left // s : right // s]
                write(layout.lr_sub(s), sub_key, f"{sub_key}.png", window)
    return written


def _windows(shape: tuple[int, int], size: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    """Top, left, bottom and right of the sub-images, row by row."""

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return [*range(0, last, step), last]

    height, width = shape
    for top in starts(height):
        for left in starts(width):
            yield top, left, min(top + size, height), min(left + size, width)


def _stored_images(
    folder: Path, entries: list[_Entry], label: str
) -> Iterator[tuple[str, bytes, tuple[int, int, int]]]:
    for entry in tqdm(sorted(entries), label, unit="image"):
        yield entry.key, (folder / entry.name).read_bytes(), entry.shape


def _digest(entries: list[_Entry]) -> str:
    """SHA-256 of the lines that ``sha256sum`` prints for the files of a folder, in the order of their names."""
    lines = "".join(f"{entry.sha256}  {entry.name}\n" for entry in sorted(entries, key=lambda entry: entry.name))
    return hashlib.sha256(lines.encode()).hexdigest()


# What is there, and moving into place


def _why_not_current(root: Path, manifest: dict[str, Any] | None, recipe: dict[str, Any]) -> str | None:
    """Why the set must be made, or None if it is there and complete."""
    if manifest is None:
        return "preparing"
    old = manifest["recipe"]
    if old is None:
        return "taking up an interrupted preparation"
    changed = [key for key in recipe if old.get(key) != recipe[key]]
    if "sources" in changed:
        before, now = old["sources"], recipe["sources"]
        keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        examples = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
        return f"preparing again: {len(keys)} images are new, changed or gone ({examples})"
    if changed:
        changes = ", ".join(f"{key} was {old.get(key)}, is {recipe[key]}" for key in changed)
        return f"preparing again: {changes}"
    for path, output in manifest["outputs"].items():
        if _count(root / path) != output["count"]:
            return f"preparing again: {root / path} is incomplete, expected {output['count']} images"
    return None


def _count(path: Path) -> int:
    """Number of images in a folder or LMDB of ours; 0 if it is not there."""
    if path.suffix == ".lmdb":
        meta_info = path / "meta_info.txt"
        return len(meta_info.read_text().splitlines()) if meta_info.exists() and (path / "data.mdb").exists() else 0
    return len(list(path.glob("*.png")))


def _check_nothing_is_lost(
    root: Path,
    layout: Layout,
    recipe: dict[str, Any],
    manifest: dict[str, Any] | None,
    folders: dict[int, Path],
) -> None:
    """Refuse to replace or remove what this module did not make, and what it is about to read."""
    ours = set(manifest["outputs"] if manifest else ())
    wanted = layout.outputs(recipe["scales"])
    sources = {folder.resolve() for folder in folders.values()}
    for path in sorted(ours.union(wanted).difference(recipe["in_place"])):
        if (root / path).resolve() in sources:
            raise ValueError(f"{root / path} would be replaced, and cannot be the source: choose another name")
        if path not in ours and (root / path).exists():
            raise FileExistsError(
                f"{root / path} exists and {root / layout.manifest} does not know it: move it away, choose another "
                "root or name, or give it as the source"
            )


def _publish(root: Path, building: Path, layout: Layout, old_manifest: dict[str, Any] | None) -> None:
    """Move what was built into place, the manifest last; may be killed and repeated at any point."""
    manifest = _read_json(building / "manifest.json")
    outputs, old_outputs = manifest["outputs"], (old_manifest or {"outputs": {}})["outputs"]
    # Until all is moved, the manifest in place says no more than what is ours.
    (building / "claim.json").write_bytes(_json({"recipe": None, "outputs": old_outputs | outputs}))
    (building / "claim.json").replace(root / layout.manifest)
    # The files are about to leave the folder that the records speak of.
    for folder in (building / "records", building / "discarded"):
        shutil.rmtree(folder, ignore_errors=True)

    for number, path in enumerate(old_outputs | outputs):
        built, place = building / path, root / path
        obsolete = path not in outputs and path not in manifest["recipe"]["in_place"]
        if place.exists() and (built.exists() or obsolete):
            (building / "discarded").mkdir(exist_ok=True)
            place.replace(building / "discarded" / str(number))
        if path in outputs and built.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            built.replace(place)
    (building / "manifest.json").replace(root / layout.manifest)
    shutil.rmtree(building)


def _report_skipped(skipped: dict[str, str]) -> None:
    for reason in skipped.values():
        logger.warning("skipped: %s", reason)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from preparing the same set; the lock ends with the process, however that ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that prepares %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _in_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Results in the order of the items, with few of them under way at any time.

    Threads suffice, since decoding, resizing, hashing and encoding all release the GIL, and they die with the process.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_bytes()) if path.exists() else None
