"""Datasets for MMagic: pairs of images from LMDBs, and pairs made from clean images by a task."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from panet_plugin.data import CleanImages, ImagePool, PairedImages, Tolerance, fresh_rng, random_patches
from panet_plugin.tasks import make_task

#: Keys of images that MMagic's transforms and preprocessor expect.
_ORDER = {"channel_order": "rgb", "color_type": "color"}


@DATASETS.register_module()
class PairedLMDBDataset(BaseDataset):
    """Pairs of low-quality ``img`` and ground truth ``gt``, RGB, with equal keys in two LMDBs, which may be sharded.

    Cropping, if enabled, precedes ``pipeline``, so that paths and scale are set in one place.

    Args:
        data_root: Folder of both LMDBs.
        img: LMDB of the low-quality images; ``{scale}`` is replaced by the scale.
        gt: LMDB of the ground truth.
        scale: Ratio of the sides of the ground truth to those of the low-quality images.
        pipeline: Transforms after loading and cropping.
        patch_size: Side in pixels of the random crop of the low-quality image; ``None`` for whole images.
        max_bad_images: Maximum number of unreadable records that each loading process skips.
        **kwargs: Further arguments of ``mmengine.dataset.BaseDataset``, such as ``indices`` and ``test_mode``.

    Raises:
        FileNotFoundError: If one of the LMDBs does not exist.
        ValueError: If a key is in only one of them.
    """

    METAINFO: ClassVar = {"dataset_type": "paired_lmdb", "task_name": "restoration"}

    def __init__(
        self,
        data_root: str,
        img: str,
        gt: str,
        scale: int = 1,
        pipeline: Sequence[dict | Any] = (),
        patch_size: int | None = None,
        max_bad_images: int = 0,
        **kwargs: Any,
    ) -> None:
        self.images = PairedImages(Path(data_root, img.format(scale=scale)), Path(data_root, gt), scale)
        self.patch_size = patch_size
        self.tolerance = Tolerance(max_bad_images)
        crop = [{"type": "PairedRandomCrop", "gt_patch_size": patch_size * scale}] if patch_size else []
        super().__init__(data_root=data_root, pipeline=[*crop, *pipeline], **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the keys of the images, with the scale that MMagic's paired transforms require."""
        lq, gt = self.images.lq.root, self.images.gt.root
        about = {"scale": self.images.scale}
        return [
            {"key": name, "img_path": str(lq / name), "gt_path": str(gt / name), **about} for name in self.images.names
        ]

    def get_data_info(self, idx: int) -> dict:
        """Return a pair with its key and paths."""
        return self.tolerance.read(partial(self._read, idx), self.images.names, idx)

    def _read(self, idx: int, name: str) -> dict:
        img, gt = self.images.read(name, self.patch_size)
        about = {f"{key}_{what}": value for key in ("img", "gt") for what, value in _ORDER.items()}
        return {**super().get_data_info(idx), "key": name, "img": img, "gt": gt, **about}


@DATASETS.register_module()
class CleanImageDataset(BaseDataset):
    """Clean RGB images of a folder or LMDB as ``gt``, and the ``task`` by which ``DegradeByTask`` makes ``img``.

    Args:
        data_root: Folder of ``gt``.
        gt: A folder of images or an LMDB, which may be sharded.
        task: Its name and the parameters of :func:`panet_plugin.tasks.make_task`.
        pipeline: Transforms after loading and cropping.
        patch_size: Side in pixels of random patches of the degraded image; ``None`` for whole images.
        memory: MiB of decoded images that each loading process keeps for cropping patches; see
            :class:`~panet_plugin.data.ImagePool`.
        **kwargs: Further arguments of ``mmengine.dataset.BaseDataset``, such as ``indices`` and ``test_mode``.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If there is no such task, or its parameters are out of range.
    """

    METAINFO: ClassVar = {"dataset_type": "clean_images", "task_name": "restoration"}

    def __init__(
        self,
        data_root: str,
        gt: str,
        task: Mapping[str, Any],
        pipeline: Sequence[dict | Any] = (),
        patch_size: int | None = None,
        memory: int = 256,
        **kwargs: Any,
    ) -> None:
        self.task = make_task(**task)
        self.images = CleanImages(Path(data_root, gt))
        self.gt_size = patch_size and patch_size * self.task.scale
        # Not a method of the dataset, which would keep the dataset and its LMDB alive.
        self.pool = ImagePool(partial(_read_patchable, self.images, self.gt_size), memory << 20)
        super().__init__(data_root=data_root, pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the names of the images."""
        return [{"key": name, "gt_path": str(self.images.root / name)} for name in self.images.names]

    def get_data_info(self, idx: int) -> dict:
        """Return an image, or a patch of one, with its name and the task."""
        info = super().get_data_info(idx)
        if self.gt_size:
            rng = fresh_rng()
            (image,) = random_patches(self.pool.draw(info["key"], rng), self.gt_size, rng)
        else:
            image = self.images.read(info["key"])
        return {**info, "gt": image, **{f"gt_{what}": value for what, value in _ORDER.items()}, "task": self.task}


def _read_patchable(images: CleanImages, side: int | None, name: str) -> tuple[np.ndarray]:
    return (images.read_patchable(name, side),)
