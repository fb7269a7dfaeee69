"""Where the pictures of a set lie: pairs of HR and LR files, in whatever of the usual layouts."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from panet_plugin.data.images import BadImageError

# Of DIV2K, for those who keep all of its 900 pictures in one folder.
DIV2K_NAMES = {
    "train": frozenset(f"{number:04d}" for number in range(1, 801)),
    "valid": frozenset(f"{number:04d}" for number in range(801, 901)),
}
# Where HR pictures are looked for, the most telling name first.
HR_FOLDERS = {
    "train": ("*_train_HR", "train_HR", "train/HR", "*_HR", "HR", "GT", "train", "."),
    "valid": ("*_valid_HR", "*_val_HR", "valid_HR", "val_HR", "valid/HR", "val/HR", "valid", "val"),
}
OTHER_SUBSETS = re.compile(r"(^|_)(val|valid|test)(_|$)")
# What stands for HR in the name of the folder beside, and where the images of a scale are below that.
LR_WORDS = ("LR_bicubic", "LR")
LR_FOLDERS = ("{lr}/X{scale}", "{lr}_X{scale}/{lr}/X{scale}", "{lr}_X{scale}/X{scale}", "{lr}_X{scale}", "{lr}x{scale}")


@dataclass(frozen=True)
class Source:
    """An HR file, the key of its image, and its given LR files by scale."""

    key: str
    hr: Path
    lr: dict[int, Path] = field(default_factory=dict)


def image_key(path: Path) -> str:
    """Name of an image in folders and LMDBs; what the readers of LMDB keys would stumble over becomes ``+hex+``."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"+{ord(match[0]):x}+", path.stem)


def list_images(folder: Path) -> dict[str, Path]:
    """Files of a folder by stem, in the order of their keys; no file of it may be anything but an image.

    Raises:
        BadImageError: Two files have the same stem.
        NotADirectoryError: There is no such folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder of images")
    images: dict[str, Path] = {}
    for path in sorted(_files(folder), key=lambda path: (image_key(path), path.name)):
        if path.stem in images:
            raise BadImageError(f"{path} has the same name as {images[path.stem].name}: rename one of them")
        images[path.stem] = path
    return images


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def find_sources(folders: Mapping[int, Path], names: Collection[str] | None = None) -> list[Source]:
    """Pair the files of an HR folder with those of folders of LR images.

    Args:
        folders: Folder of every scale; 1 is HR.
        names: Take only the images of these stems.

    Raises:
        BadImageError: An image has no partner.
        ValueError: There is no image at all.
    """

    def listed(folder: Path, suffix: str = "") -> dict[str, Path]:
        found = list_images(folder)
        return {
            stem: path for stem, path in found.items() if names is None or stem.removesuffix(suffix) in names
        }  # fmt: skip

    hr_files = listed(folders[1])
    if not hr_files:
        raise ValueError(f"{folders[1]} holds no images")
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
            raise BadImageError(f"{folder} holds LR images that have no HR image in {folders[1]}: {strays}")
    return [Source(image_key(path), path, lr_files[stem]) for stem, path in hr_files.items()]


def find_subset(
    folder: str | os.PathLike, subset: str, scales: Sequence[int]
) -> tuple[dict[int, Path], frozenset[str] | None]:
    """Find the pictures of a training set that was unpacked by hand.

    DIV2K, Flickr2K and DF2K are found as their archives unpack and as BasicSR, MMagic and EDSR want them; so are
    ``train_HR`` and ``HR`` with ``LR_bicubic/X2`` beside. Else the folder itself is taken for the pictures to train on.

    Args:
        folder: The folder of the set, or one above it, or that of its HR pictures.
        subset: ``"train"`` or ``"valid"``.
        scales: Whose LR images to look for. What is not there is left out.

    Returns:
        The folder of every scale, 1 being HR; and the stems that belong to the subset if the folder holds more.

    Raises:
        NotADirectoryError: There is no such folder.
        FileNotFoundError: There are no pictures of this subset.
        ValueError: There are several folders of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    names = None
    hr = _find_hr(folder, subset)
    if subset == "valid" and hr is None:
        hr, names = _find_hr(folder, "train"), DIV2K_NAMES["valid"]
        if hr is None or not names.issubset(path.stem for path in _files(_unnested(hr))):
            hr = None
    if hr is None:
        looked_for = ", ".join(HR_FOLDERS[subset])
        raise FileNotFoundError(f"{folder} holds no pictures of the subset {subset}: looked for {looked_for}")
    stems = {path.stem for path in _files(_unnested(hr))}
    if subset == "train" and stems > DIV2K_NAMES["train"] and stems & DIV2K_NAMES["valid"]:
        # Training on these would spoil the validation.
        names = DIV2K_NAMES["train"]
    folders = {1: _unnested(hr)}
    for scale in scales:
        words = (hr.name.replace("HR", word) for word in LR_WORDS if "HR" in hr.name)
        candidates = (hr.parent / path.format(lr=lr, scale=scale) for lr in words for path in LR_FOLDERS)
        if lr_folder := next((path for path in candidates if path.is_dir() and any(_files(path))), None):
            folders[scale] = lr_folder
    return folders, names


def _find_hr(folder: Path, subset: str) -> Path | None:
    """The HR folder of a subset in a folder, or one or two levels below."""
    for pattern in HR_FOLDERS[subset]:
        if pattern == "." and any(_files(_unnested(folder))):
            return folder
        for prefix in ("", "*/", "*/*/") if pattern != "." else ():
            found = [path for path in sorted(folder.glob(prefix + pattern)) if path.is_dir()]
            found = [path for path in found if any(_files(_unnested(path)))]
            if subset == "train":
                found = [path for path in found if not OTHER_SUBSETS.search(path.name)]
            if len(found) > 1:
                raise ValueError(f"{folder} holds {' and '.join(map(str, found))}: name the one to take")
            if found:
                return found[0]
    return None


def _unnested(folder: Path) -> Path:
    """The folder of the same name within, where some programs unpack to."""
    return folder / folder.name if (folder / folder.name).is_dir() else folder
