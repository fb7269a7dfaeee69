"""Preparing DIV2K, or other images in its place, for training: download, unpack, check and pack into LMDBs."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from panet_plugin.data.archives import SUFFIXES, extract, has_suffix, unpack
from panet_plugin.data.datasets import DIV2K, DIV2K_URL, Archive
from panet_plugin.data.download import ARCHIVES, DownloadError, check_archive, download_archive
from panet_plugin.data.prepare import prepare_images
from panet_plugin.data.shards import Shard
from panet_plugin.data.sources import ImageFolders, find_subset, images_by_stem
from panet_plugin.files import locked

logger = logging.getLogger(__name__)


def prepare_div2k(
    root: str | os.PathLike,
    subsets: Sequence[str] = ("train", "valid"),
    scales: Sequence[int] = (2, 3, 4),
    *,
    from_archives: str | os.PathLike | None = None,
    from_folders: Sequence[str | os.PathLike] = (),
    mirror: str = DIV2K_URL,
    skip_bad: bool = False,
    workers: int | None = None,
    shard: Shard | None = None,
) -> None:
    """Make the LMDBs that the training configs read; complete ones are kept.

    Args:
        root: Destination. Existing folders of DIV2K are used as they are.
        subsets: ``"train"``, ``"valid"`` or both.
        scales: Scales of the LR images to prepare; empty for tasks that degrade clean images on the fly.
        from_archives: Folder of archives to use instead of downloading: DIV2K's, or others, which are all unpacked and
            searched like ``from_folders``.
        from_folders: Unpacked DIV2K, Flickr2K or DF2K, or any folders of images, to use instead of downloading; see
            :func:`panet_plugin.data.sources.find_subset`.
        mirror: URL of the folder on the server.
        skip_bad: Skip and list unusable images instead of stopping at the first.
        workers: Number of threads; the number of usable cores by default.
        shard: Make only this part of each subset; see :func:`panet_plugin.data.prepare_set`.

    Raises:
        ValueError: Images, archives or settings cannot be used; specific errors are subclasses.
        OSError: Files are missing or cannot be read, written or downloaded.
    """
    root = Path(root)
    scales = sorted(set(scales))
    if from_archives is not None and not from_folders and not _has_div2k(Path(from_archives), subsets):
        from_folders = [_unpack_all(Path(from_archives), root)]
    # Find all before preparing the first, which takes a while.
    if from_folders:
        found = {subset: find_subset(from_folders, subset, scales) for subset in subsets}
    else:
        found = {}
        wanted = [DIV2K[subset].archives[scale] for subset in subsets for scale in (1, *_known(subset, scales))]
        if from_archives is not None:
            _check_all_are_there(root, Path(from_archives), wanted)
        for archive in wanted:
            _ensure_folder(root, archive, mirror, None if from_archives is None else Path(from_archives))
        for subset in subsets:
            archives = DIV2K[subset].archives
            found[subset] = [ImageFolders({s: root / archives[s].folder for s in (1, *_known(subset, scales))})]
    for subset, parts in found.items():
        name = DIV2K[subset].layout.name
        for part in parts:
            logger.info("%s: images of %s", root / name, ", ".join(map(str, part.folders.values())))
        prepare_images(
            parts,
            root,
            name,
            scales=scales,
            subimage=DIV2K[subset].subimage,
            crop=DIV2K[subset].crop,
            skip_bad=skip_bad,
            workers=workers,
            shard=shard,
        )


def _known(subset: str, scales: Sequence[int]) -> list[int]:
    """Return the scales that have archives; LR images of the others are made."""
    return [scale for scale in scales if scale in DIV2K[subset].archives]


def _has_div2k(folder: Path, subsets: Sequence[str]) -> bool:
    archives = (archive for subset in subsets for archive in DIV2K[subset].archives.values())
    return any((folder / archive.name).is_file() for archive in archives)


def _check_all_are_there(root: Path, folder: Path, wanted: Sequence[Archive]) -> None:
    missing = [
        archive.name
        for archive in wanted
        if not (root / archive.folder).is_dir() and not (folder / archive.name).is_file()
    ]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: select fewer with --subset and --scale")


def _ensure_folder(root: Path, archive: Archive, mirror: str, given: Path | None) -> None:
    """Make sure that the folder of an archive exists; download and unpack the archive if necessary."""
    folder = root / archive.folder
    with locked(folder):
        if not folder.is_dir():
            path = (root / ARCHIVES if given is None else given) / archive.name
            if given is None:
                download_archive(f"{mirror.rstrip('/')}/{archive.name}", path, archive.sha256, archive.size)
            else:
                check_archive(path, archive.sha256)
            _extract_images(path, folder)
        shutil.rmtree(_unpacked(folder), ignore_errors=True)
        if (count := len(images_by_stem(folder))) != archive.count:
            raise DownloadError(
                f"{folder} contains {count} images, expected {archive.count}: move it away to have it made again, or "
                "use it as it is with --from-folder"
            )


def _extract_images(path: Path, folder: Path) -> None:
    """Unpack an archive with one folder of images, at any depth, as the given folder."""
    unpacked = _unpacked(folder)
    shutil.rmtree(unpacked, ignore_errors=True)
    extract(path, unpacked)
    holding = [place for place in (unpacked, *unpacked.rglob("*")) if place.is_dir() and images_by_stem(place)]
    if len(holding) != 1:
        raise DownloadError(f"{path} contains {len(holding)} folders of images, expected 1")
    holding[0].replace(folder)


def _unpacked(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.unpacked")


def _unpack_all(folder: Path, root: Path) -> Path:
    """Unpack all archives in a folder, each to its own folder."""
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder of archives")
    archives = [path for path in folder.iterdir() if has_suffix(path)]
    if not archives:
        raise FileNotFoundError(f"{folder} contains no archives ({', '.join(SUFFIXES)})")
    return unpack(archives, root)
