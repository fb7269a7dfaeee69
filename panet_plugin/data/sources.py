"""Finding the images of a set: pairs of HR and LR files in any of the usual layouts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from panet_plugin.data.image_reader import BadImageError, files_in

# File names of DIV2K, whose 900 images may be in one folder.
DIV2K_NAMES = {
    "train": frozenset(f"{number:04d}" for number in range(1, 801)),
    "valid": frozenset(f"{number:04d}" for number in range(801, 901)),
}
# Names of folders of HR images, the most specific first.
HR_FOLDERS = {
    "train": ("*_train_HR", "train_HR", "train/HR", "*_HR", "HR", "GT", "train", "."),
    "valid": ("*_valid_HR", "*_val_HR", "valid_HR", "val_HR", "valid/HR", "val/HR", "valid", "val"),
}
# Folders of DF2K, if its parts were not merged into one.
PARTS = ("DIV2K_train_HR", "Flickr2K_HR")
OTHER_SUBSETS = re.compile(r"(^|_)(val|valid|test)(_|$)")
# Replacements for HR in the name of an LR folder, and the paths of the images of a scale in it.
LR_WORDS = ("LR_bicubic", "LR")
LR_FOLDERS = ("{lr}/X{scale}", "{lr}_X{scale}/{lr}/X{scale}", "{lr}_X{scale}/X{scale}", "{lr}_X{scale}", "{lr}x{scale}")


@dataclass(frozen=True)
class ImageFolders:
    """Folders of the images of a set, or of a part of it.

    Attributes:
        folders: Folder by scale; 1 is HR.
        names: The stems that belong to the set, if the folders contain others too.
    """

    folders: Mapping[int, Path]
    names: Collection[str] | None = None


@dataclass(frozen=True)
class Source:
    """An HR file, the key of its image, and its existing LR files by scale."""

    key: str
    hr: Path
    lr: dict[int, Path] = field(default_factory=dict)


#: Longest name in folders and LMDBs: LMDB keys have at most 511 bytes and file names 255, including numbers of
#: sub-images and suffixes.
_LONGEST_KEY = 200


def image_key(path: Path) -> str:
    """Return the name of an image in folders and LMDBs; characters that are invalid in LMDB keys become ``+hex+``.

    A name that is too long becomes its beginning and a hash.
    """
    key = re.sub(r"[^A-Za-z0-9_-]", lambda match: f"+{ord(match[0]):x}+", path.stem)
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{key[: _LONGEST_KEY - 17]}-{hashlib.sha256(path.stem.encode(errors='surrogateescape')).hexdigest()[:16]}"


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by stem, in the order of their keys; all of them must be images.

    Raises:
        BadImageError: Two files have the same stem.
        NotADirectoryError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder of images")
    images: dict[str, Path] = {}
    for path in sorted(files_in(folder), key=lambda path: (image_key(path), path.name)):
        if path.stem in images:
            raise BadImageError(f"{path} has the same name as {images[path.stem].name}: rename one of them")
        images[path.stem] = path
    return images


def find_sources(parts: Iterable[ImageFolders]) -> list[Source]:
    """Pair the files of HR and LR folders; return the pairs in the order of their keys.

    Raises:
        BadImageError: An image has no counterpart, or two have the same name.
        ValueError: A part has no images.
    """
    sources: dict[str, Source] = {}
    for source in (source for part in parts for source in _pair(part.folders, part.names)):
        if other := sources.get(source.key):
            raise BadImageError(f"{source.hr} has the same name as {other.hr}: rename one of them")
        sources[source.key] = source
    return [sources[key] for key in sorted(sources)]


def _pair(folders: Mapping[int, Path], names: Collection[str] | None) -> Iterator[Source]:
    def listed(folder: Path, suffix: str = "") -> dict[str, Path]:
        found = images_by_stem(folder)
        return {
            stem: path for stem, path in found.items() if names is None or stem.removesuffix(suffix) in names
        }  # fmt: skip

    hr_files = listed(folders[1])
    if not hr_files:
        raise ValueError(f"{folders[1]} contains no images")
    lr_files: dict[str, dict[int, Path]] = {stem: {} for stem in hr_files}
    for scale, folder in folders.items():
        if scale == 1:
            continue
        found = listed(folder, f"x{scale}")
        for stem in hr_files:
            path = found.pop(f"{stem}x{scale}", None) or found.pop(stem, None)
            if path is None:
                raise BadImageError(f"{hr_files[stem]} has no LR image {stem}x{scale} or {stem} in {folder}")
            lr_files[stem][scale] = path
        if found:
            strays = ", ".join(path.name for path in found.values())
            raise BadImageError(f"{folder} contains LR images without an HR image in {folders[1]}: {strays}")
    return (Source(image_key(path), path, lr_files[stem]) for stem, path in hr_files.items())


def find_subset(folders: Sequence[str | os.PathLike], subset: str, scales: Sequence[int]) -> list[ImageFolders]:
    """Find the images of a training set that was unpacked manually.

    DIV2K, Flickr2K and DF2K are found in the layouts of their archives and of BasicSR, MMagic and EDSR; so are
    ``train_HR`` and ``HR`` with ``LR_bicubic/X2`` beside them. Otherwise the folder itself is used for training.

    Args:
        folders: For each part the folder of the set, its parent folder, or the folder of its HR images.
        subset: ``"train"`` or ``"valid"``.
        scales: Scales of the LR images to find; missing ones are skipped.

    Returns:
        The parts of the set.

    Raises:
        NotADirectoryError: There is no such folder.
        FileNotFoundError: A folder has no training images, or none of them has validation images.
        ValueError: A folder contains several sets.
    """
    paths = [*map(Path, folders)]
    for folder in paths:
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is not a folder")
    found = {folder: _find_images(folder, subset, scales) for folder in paths}
    without = [folder for folder in paths if not found[folder]]
    if without and (subset == "train" or len(without) == len(paths)):
        looked_for = ", ".join(HR_FOLDERS[subset])
        raise FileNotFoundError(f"{without[0]} contains no images of the subset {subset}: searched for {looked_for}")
    return [part for folder in paths for part in found[folder]]


def _find_images(folder: Path, subset: str, scales: Sequence[int]) -> list[ImageFolders]:
    parts = []
    for hr in _find_hr(folder, subset):
        stems = {path.stem for path in files_in(_unnested(hr))}
        # Training on these would invalidate the validation.
        mixed = stems > DIV2K_NAMES["train"] and stems & DIV2K_NAMES["valid"]
        names = stems - DIV2K_NAMES["valid"] if subset == "train" and mixed else None
        parts.append(ImageFolders(_with_lr(hr, scales), names))
    if subset == "valid" and not parts:
        for hr in _find_hr(folder, "train"):
            if DIV2K_NAMES["valid"].issubset(path.stem for path in files_in(_unnested(hr))):
                parts.append(ImageFolders(_with_lr(hr, scales), DIV2K_NAMES["valid"]))
    return parts


def _with_lr(hr: Path, scales: Sequence[int]) -> dict[int, Path]:
    """Return a folder of HR images and the folders of LR images beside it, by scale."""
    folders = {1: _unnested(hr)}
    for scale in scales:
        words = (hr.name.replace("HR", word) for word in LR_WORDS if "HR" in hr.name)
        candidates = (hr.parent / path.format(lr=lr, scale=scale) for lr in words for path in LR_FOLDERS)
        if lr_folder := next((path for path in candidates if path.is_dir() and any(files_in(path))), None):
            folders[scale] = lr_folder
    return folders


def _find_hr(folder: Path, subset: str) -> list[Path]:
    """Return the HR folders of a subset in a folder, up to two levels deep: one, or those of DF2K."""

    def holding(pattern: str, prefixes: Sequence[str] = ("", "*/", "*/*/")) -> list[Path]:
        found = [path for prefix in prefixes for path in sorted(folder.glob(prefix + pattern)) if path.is_dir()]
        found = [path for path in found if any(files_in(_unnested(path)))]
        if subset == "train":
            found = [path for path in found if not OTHER_SUBSETS.search(path.name)]
        # A folder inside one with the same name counts once.
        return sorted({_unnested(path): path for path in reversed(found)}.values())

    if subset == "train" and all(parts := [holding(name) for name in PARTS]):
        found = [path for part in parts for path in part]
        if "df2k" not in folder.resolve().name.lower():
            raise _several(folder, found)
        return found
    for pattern in HR_FOLDERS[subset]:
        if pattern == "." and any(files_in(_unnested(folder))):
            return [folder]
        for prefix in ("", "*/", "*/*/") if pattern != "." else ():
            found = holding(pattern, [prefix])
            if len(found) > 1:
                raise _several(folder, found)
            if found:
                return found
    return []


def _several(folder: Path, found: Sequence[Path]) -> ValueError:
    return ValueError(
        f"{folder} contains {' and '.join(map(str, found))}: pass the one to use, or all that form the set"
    )


def _unnested(folder: Path) -> Path:
    """Return the inner folder of the same name, which some programs create when unpacking, or the folder itself."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder
