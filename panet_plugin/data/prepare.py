"""From folders of images to the LMDBs, and optionally folders, that the training configs of both frameworks read.

Images are written in batches: first to the LMDBs, each in one transaction, then a record of the batch. Only the last
batch can therefore be in some LMDBs and not in others, and writing it again gives the same result.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from panet_plugin.data.build import make_set
from panet_plugin.data.image_reader import BadImageError
from panet_plugin.data.images import encode_image, read_image
from panet_plugin.data.lmdb_writer import EncodedImage, append_to_lmdb, write_meta_info
from panet_plugin.data.manifest import FORMAT, Entry, Layout, digest, read_json, sha256_of, summary, to_json
from panet_plugin.data.parallel import in_threads
from panet_plugin.data.shards import Shard, claim, list_shards
from panet_plugin.data.sources import ImageFolders, Source, find_sources
from panet_plugin.degradations import imresize
from panet_plugin.files import write_bytes

# Size of a batch, all scales together.
BATCH_BYTES = 64 << 20


def prepare_set(
    hr_dir: str | os.PathLike,
    root: str | os.PathLike,
    name: str,
    *,
    scales: Sequence[int] = (2, 3, 4),
    lr_dir: str | os.PathLike | Mapping[int, str | os.PathLike] | None = None,
    names: Collection[str] | None = None,
    subimage: tuple[int, int] | None = (480, 240),
    crop: int | None = None,
    folders: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    shard: Shard | None = None,
) -> bool:
    """Write HR and LR images or sub-images of a folder to LMDBs named as in :class:`Layout`.

    HR images are cropped at the bottom and the right to a multiple of every scale. If a complete set, made from the
    same images with the same settings, exists, nothing is done. HR or LR images that are already in place (``hr_dir``
    is ``root/NAME_HR``, ``lr_dir`` is ``root/NAME_LR_bicubic``) are not modified.

    Args:
        hr_dir: Folder that contains only images; subfolders and hidden files are ignored.
        root: Destination; created if missing.
        name: Name of the set, such as ``DIV2K_train``.
        scales: Integer factors between LR and HR; empty for HR only.
        lr_dir: Folder of LR images, ``X2/0001x2.png`` or ``X2/0001.png``; with a single scale, ``X2`` may be omitted.
            Or the folder of each scale. Missing LR images are made by MATLAB's bicubic.
        names: Use only the images with these names, without suffix.
        subimage: Side and step of the HR sub-images in pixels, multiples of every scale. The last sub-image of a row
            or column is moved inward to end at the border; an image smaller than the side gives a single one. None: no
            sub-images, the LMDBs contain whole images.
        crop: Side in pixels of the center crop of each HR image, a multiple of every scale: validation on whole images
            during training would take too long. None: no crop.
        folders: Also write the images and sub-images as PNG files. Training needs only the LMDBs.
        skip_bad: Skip and list unusable images instead of stopping at the first.
        workers: Number of threads; the number of usable cores by default.
        shard: Make only this part of the set; see :class:`Shard`. Other machines may make the others at the same time,
            in the same ``root``.

    Returns:
        Whether anything was made.

    Raises:
        BadImageError: An image cannot be read or is too small, its LR image is missing or has the wrong size, or two
            images have the same name.
        FileExistsError: ``root`` contains an output that this function did not make.
        NotADirectoryError: ``hr_dir`` or ``lr_dir`` is not a folder.
        OSError: A file cannot be read or written, or the disk is full.
        ValueError: Scales or sub-image sizes are invalid, there are no images, or a shard does not match the existing
            ones.
    """
    part = ImageFolders(_source_folders(Path(hr_dir), lr_dir, sorted(set(scales))), names)
    return prepare_images(
        [part],
        root,
        name,
        scales=scales,
        subimage=subimage,
        crop=crop,
        folders=folders,
        skip_bad=skip_bad,
        workers=workers,
        shard=shard,
    )


def prepare_images(
    parts: Sequence[ImageFolders],
    root: str | os.PathLike,
    name: str,
    *,
    scales: Sequence[int],
    subimage: tuple[int, int] | None,
    crop: int | None = None,
    folders: bool = False,
    skip_bad: bool = False,
    workers: int | None = None,
    shard: Shard | None = None,
) -> bool:
    """Make one set from images in several folders; otherwise as :func:`prepare_set`."""
    scales = sorted(set(scales))
    _check_settings(name, scales, subimage, crop)
    root = Path(root)
    layout = Layout(name, subimage is not None, shard and str(shard))
    sources = find_sources(parts)
    if shard:
        if folders:
            raise ValueError("a sharded set consists of LMDBs, without folders of images")
        if shard.of > len(sources):
            raise ValueError(f"{name}: {len(sources)} images, expected at least one for each of {shard.of} shards")
        whole = {"count": len(sources), "sha256": digest((source.key, "") for source in sources)}
        sources = shard.share(sources)
    recipe = {
        "format": FORMAT,
        "name": f"{name}-{shard}" if shard else name,
        "shard": shard and list(shard),
        # All images of the set, of which a shard has a part; existing manifests have this key.
        "pictures": whole if shard else None,
        "scales": scales,
        "subimage": None if subimage is None else list(subimage),
        "crop": crop,
        "given": [scale for scale in scales if any(scale in part.folders for part in parts)],
        "whole": shard is None and all(part.names is None for part in parts),
        # A folder holds all images of the set, or is not part of it.
        "in_place": _folders_in_place(root, layout, parts[0].folders) if len(parts) == 1 else {},
        "folders": folders,
        "skip_bad": skip_bad,
        "sources": _hash_sources(sources, name, workers),
    }
    outputs = layout.lmdbs(scales) + (layout.folders(scales) if folders else [])
    claim(root, name, shard, recipe, outputs)
    read = [folder for part in parts for folder in part.folders.values()]
    build = partial(_build, sources=sources, layout=layout, recipe=recipe, workers=workers)
    made = make_set(root, recipe, outputs, read, build)
    if shard:
        list_shards(root, name, shard)
    return made


# Settings and sources


def _check_settings(name: str, scales: list[int], subimage: tuple[int, int] | None, crop: int | None) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"the name of a set may contain only letters, digits, '_' and '-', got {name!r}")
    if any(scale != int(scale) or scale < 2 for scale in scales):
        raise ValueError(f"scales must be whole numbers above 1, got {scales}")
    multiple = math.lcm(*scales)
    if subimage is not None and any(size < 1 or size % multiple for size in subimage):
        raise ValueError(f"sub-image size and step must be multiples of {multiple} for scales {scales}, got {subimage}")
    if crop is not None and (crop < 1 or crop % multiple):
        raise ValueError(f"crop must be a multiple of {multiple} for scales {scales}, got {crop}")


def _source_folders(
    hr_dir: Path, lr_dir: str | os.PathLike | Mapping[int, str | os.PathLike] | None, scales: list[int]
) -> dict[int, Path]:
    """Return the source folder of every scale that has one; 1 is HR."""
    if lr_dir is None:
        return {1: hr_dir}
    if isinstance(lr_dir, Mapping):
        return {1: hr_dir} | {scale: Path(lr_dir[scale]) for scale in scales if scale in lr_dir}
    nested = {scale: Path(lr_dir, f"X{scale}") for scale in scales}
    if len(scales) == 1 and not nested[scales[0]].is_dir():
        nested = {scales[0]: Path(lr_dir)}
    return {1: hr_dir} | nested


def _folders_in_place(root: Path, layout: Layout, folders: Mapping[int, Path]) -> dict[str, int]:
    """Return the folders of the layout that are source folders, with the index of the source files that they hold."""
    names = {scale: layout.hr if scale == 1 else layout.lr(scale) for scale in folders}
    return {
        names[scale]: number
        for number, scale in enumerate(folders)
        if (root / names[scale]).resolve() == folders[scale].resolve()
    }


def _hash_sources(sources: list[Source], name: str, workers: int | None) -> dict[str, Any]:
    """Return name and SHA-256 of every source file, which change with an image but not with its folder."""

    def digest(source: Source) -> list[list[str]]:
        return [[path.name, sha256_of(path)] for path in (source.hr, *source.lr.values())]

    results = in_threads(digest, sources, workers)
    done = tqdm(results, f"{name}: checking sources", len(sources), unit="image", leave=False)
    return {source.key: hashes for source, hashes in zip(sources, done, strict=True)}


# Building


class _Made(NamedTuple):
    """The results for one source: images by LMDB, entries by LMDB and folder, or the reason for skipping it."""

    images: dict[str, list[EncodedImage]]
    entries: dict[str, list[Entry]]
    skipped: str | None = None


def _build(
    building: Path, sources: list[Source], layout: Layout, recipe: dict[str, Any], workers: int | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fill the folder ``building``, continuing a killed run; return summaries of its contents and skipped images."""
    # Only counts are kept; entries are read from the records at the end, so that memory does not grow with the set.
    held: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    done = number = 0
    for record in _records(building):
        done += record["sources"]
        number += 1
        _note(record, held, skipped)

    make = partial(_make_image, building=building, layout=layout, recipe=recipe)
    results = in_threads(make, sources[done:], workers)
    label = f"{recipe['name']}: images"
    with tqdm(desc=label, total=len(sources), initial=done, unit="image") as progress:
        for batch in _batches(zip(sources[done:], results, strict=True)):
            record = _write_batch(building, batch, held)
            write_bytes(building / "records" / f"{number}.json", to_json(record))
            number += 1
            _note(record, held, skipped)
            progress.update(len(batch))
    if not held:
        raise ValueError(f"{recipe['name']}: none of the {len(sources)} images can be used")

    outputs = {}
    for path in sorted(held):
        entries = [Entry(*entry) for record in _records(building) for entry in record["written"].get(path, ())]
        if path.endswith(".lmdb"):
            write_meta_info(building / path, [(entry.key, entry.shape) for entry in sorted(entries)])
        outputs[path] = summary(entries)
    return outputs, skipped


def _batches(made: Iterable[tuple[Source, _Made]]) -> Iterator[list[tuple[Source, _Made]]]:
    """Group sources in order; the end of a batch depends only on its images."""
    batch, size = [], 0
    for source, result in made:
        batch.append((source, result))
        size += sum(len(image.content) for images in result.images.values() for image in images)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write_batch(building: Path, batch: list[tuple[Source, _Made]], held: Mapping[str, int]) -> dict[str, Any]:
    """Add a batch to the LMDBs, and return its record."""
    images: dict[str, list[EncodedImage]] = {}
    written: dict[str, list[Entry]] = {}
    for _, made in batch:
        for path, encoded in made.images.items():
            images.setdefault(path, []).extend(encoded)
        for path, entries in made.entries.items():
            written.setdefault(path, []).extend(entries)
    for path, encoded in images.items():
        append_to_lmdb(building / path, encoded, held=held[path])
    skipped = {source.hr.name: made.skipped for source, made in batch if made.skipped}
    return {"sources": len(batch), "skipped": skipped, "written": written}


def _records(building: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of the written batches, in order."""
    for number in count():
        record = read_json(building / "records" / f"{number}.json")
        if record is None:
            return
        yield record


def _note(record: dict[str, Any], held: Counter[str], skipped: dict[str, str]) -> None:
    """Add the contents of a record to those of the earlier records."""
    skipped |= record["skipped"]
    held.update({path: len(entries) for path, entries in record["written"].items()})


def _make_image(source: Source, building: Path, layout: Layout, recipe: dict[str, Any]) -> _Made:
    """Make all outputs of one source image; write those that go to folders."""
    made = _Made({}, {})
    try:
        hr, lr = _load_pair(source, recipe["scales"], recipe["crop"])
    except BadImageError as error:
        if not recipe["skip_bad"]:
            raise
        return made._replace(skipped=str(error))

    def write(path: str, name: str, image: np.ndarray, content: bytes) -> None:
        if path.endswith(".lmdb"):
            made.images.setdefault(path, []).append(EncodedImage(name.removesuffix(".png"), content, image.shape))
        elif not recipe["folders"] or path in recipe["in_place"]:
            return
        else:
            (building / path).mkdir(parents=True, exist_ok=True)
            (building / path / name).write_bytes(content)
        made.entries.setdefault(path, []).append(Entry(name, hashlib.sha256(content).hexdigest(), image.shape))

    for scale, image in {1: hr, **lr}.items():
        lmdb = layout.hr_lmdb if scale == 1 else layout.lr_lmdb(scale)
        folder, end = (layout.hr, "") if scale == 1 else (layout.lr(scale), f"x{scale}")
        if not layout.subimages or recipe["folders"]:
            content = encode_image(image)
            write(folder, f"{source.key}{end}.png", image, content)
        if not layout.subimages:
            write(lmdb, f"{source.key}.png", image, content)
            continue
        folder = layout.hr_sub if scale == 1 else layout.lr_sub(scale)
        for number, window in enumerate(_windows(hr.shape[:2], *recipe["subimage"]), 1):
            top, left, bottom, right = (side // scale for side in window)
            part, name = image[top:bottom, left:right], f"{source.key}_s{number:03d}.png"
            content = encode_image(part)
            write(folder, name, part, content)
            write(lmdb, name, part, content)
    return made


def _load_pair(source: Source, scales: list[int], crop: int | None) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return the HR image, cropped to a multiple of all scales or to its center, and its LR images, read or made."""
    hr = read_image(source.hr)
    full = hr.shape[:2]
    multiple = math.lcm(*scales)
    height, width = (side // multiple * multiple for side in full)
    if not height or not width:
        raise BadImageError(f"{source.hr}: {full[0]}x{full[1]} pixels, expected at least {multiple}x{multiple}")
    hr = hr[:height, :width]
    lr = {}
    for scale in scales:
        if scale not in source.lr:
            lr[scale] = imresize(hr, output_shape=(height // scale, width // scale))
            continue
        given = read_image(source.lr[scale])
        # The size of an LR image may have been rounded up or down.
        if any(
            side not in (whole // scale, -(-whole // scale)) for side, whole in zip(given.shape, full, strict=False)
        ):
            raise BadImageError(
                f"{source.lr[scale]}: {given.shape[0]}x{given.shape[1]} pixels, expected "
                f"{full[0] // scale}x{full[1] // scale} for x{scale} of {source.hr.name}"
            )
        lr[scale] = given[: height // scale, : width // scale]
    if crop:
        # Made from the whole image first: the LR image of the crop would be blurred differently at its border.
        top, left = (max(side - crop, 0) // 2 // multiple * multiple for side in (height, width))
        bottom, right = min(top + crop, height), min(left + crop, width)
        hr = hr[top:bottom, left:right]
        lr = {s: image[top // s : bottom // s, left // s : right // s] for s, image in lr.items()}
    return hr, lr


def _windows(shape: tuple[int, int], size: int, step: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield top, left, bottom and right of the sub-images, row by row."""

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return [*range(0, last, step), last]

    height, width = shape
    for top in starts(height):
        for left in starts(width):
            yield top, left, min(top + size, height), min(left + size, width)
