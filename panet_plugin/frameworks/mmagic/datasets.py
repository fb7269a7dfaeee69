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

#: What MMagic's transforms and preprocessor ask of an image.
_ORDER = {"channel_order": "rgb", "color_type": "color"}


@DATASETS.register_module()
class PairedLMDBDataset(BaseDataset):
    """Low-quality images ``img`` and ground truth ``gt`` of two LMDBs, which may be in shards, with equal keys, as RGB.

    Cropping, if asked for, is put before ``pipeline``: what depends on the paths and on the scale is so said once.

    Args:
        data_root: Folder of both LMDBs.
        img: LMDB of the low-quality images; ``{scale}`` in it stands for the scale.
        gt: LMDB of the ground truth.
        scale: Factor from the sides of the low-quality images to those of the ground truth.
        pipeline: Transforms after loading and cropping.
        patch_size: Side in pixels of the random patch cut from the low-quality image; ``None`` keeps the whole.
        max_bad_images: How many records that cannot be read every loading process may pass over.
        **kwargs: Further arguments of ``mmengine.dataset.BaseDataset``, such as ``indices`` and ``test_mode``.

    Raises:
        FileNotFoundError: If one of the LMDBs does not exist.
        ValueError: If a key is in one of them alone.
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
        """Return the keys of the images, with the scale that MMagic's paired transforms ask for."""
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
        gt: A folder of images or an LMDB, which may be in shards.
        task: Its name and the parameters of :func:`panet_plugin.tasks.make_task`.
        pipeline: Transforms after loading and cropping.
        patch_size: Side in pixels of random patches of the degraded image; ``None`` keeps the whole.
        memory: MiB of decoded images that every loading process keeps to cut patches from; see
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
        # No method of the dataset, which would keep itself and its LMDB alive.
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
