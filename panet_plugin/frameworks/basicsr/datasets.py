"""Datasets for BasicSR: pairs of images from LMDBs, and pairs made from clean images by a task."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset

from panet_plugin.data import CleanImages, PairedImages, Tolerance, fresh_rng
from panet_plugin.tasks import image_rng, make_task


@DATASET_REGISTRY.register()
class PairedLMDBDataset(Dataset):
    """Pairs of images with the same names from two LMDBs, which may be sharded, or folders.

    BasicSR's ``PairedImageDataset`` returns the same patches, but its errors do not name the damaged record.

    Args:
        opt: Options of a BasicSR dataset, with

            - ``dataroot_gt``, ``dataroot_lq``: the LMDBs;
            - ``gt_size``: side of the patches of the ground truth in pixels, in training;
            - ``use_hflip``, ``use_rot``: flips, and flips with transposition, in training;
            - ``max_bad_images``: maximum number of unreadable records that each loading process skips in training;
              default 0;
            - ``shuffle_buffer``: number of images shuffled at a time in training, so that the disk is read
              sequentially, see :func:`panet_plugin.data.sequential_order`; default: all.

    Raises:
        FileNotFoundError: If one of the LMDBs does not exist.
        ValueError: If a key is in only one of them.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.images = PairedImages(opt["dataroot_lq"], opt["dataroot_gt"], opt["scale"])
        self.training = opt["phase"] == "train"
        self.tolerance = Tolerance(opt.get("max_bad_images", 0) if self.training else 0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.tolerance.read(self._pair, self.images.names, index)

    def _pair(self, name: str) -> dict[str, Any]:
        scale, side = self.images.scale, self.opt["gt_size"] if self.training else None
        lq, gt = self.images.read(name, side and side // scale)
        if side:
            gt, lq = paired_random_crop(gt, lq, side, scale, name)
            gt, lq = augment([gt, lq], self.opt["use_hflip"], self.opt["use_rot"])
        paths = {"lq_path": str(self.images.lq.root / name), "gt_path": str(self.images.gt.root / name)}
        return {"lq": _to_tensor(lq), "gt": _to_tensor(gt), **paths}


@DATASET_REGISTRY.register()
class CleanImageDataset(Dataset):
    """Pairs of degraded and clean images, made by a task from clean images.

    In training (``phase: train``), patches are cropped, flipped and transposed, and degraded differently each time; in
    validation, whole images are degraded identically in every run.

    Args:
        opt: Options of a BasicSR dataset, with

            - ``dataroot_gt``: a folder of images or an LMDB, which may be sharded;
            - ``task``: its name and the parameters of :func:`panet_plugin.tasks.make_task`;
            - ``gt_size``: side of the patches of clean images in pixels, in training;
            - ``use_hflip``, ``use_rot``: flips, and flips with transposition, in training;
            - ``shuffle_buffer``: as for ``PairedLMDBDataset``;
            - ``seed``: seed of the noise in validation, which also depends on the image's name; default 0.

    Raises:
        FileNotFoundError: If there are no images.
        ValueError: If there is no such task, or its parameters are out of range.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__()
        self.opt = opt
        self.task = make_task(**opt["task"])
        self.images = CleanImages(opt["dataroot_gt"])
        self.training = opt["phase"] == "train"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.images.names[index]
        if self.training:
            side = self.opt["gt_size"]
            image = self.images.read_patchable(name, side)
            image, _ = paired_random_crop(image, image, side, 1, name)
            image = augment(image, self.opt["use_hflip"], self.opt["use_rot"])
            rng = fresh_rng()
        else:
            image = self.images.read(name)
            rng = image_rng(name, self.opt.get("seed", 0))
        reference = self.task.reference(image)
        degraded = self.task.degrade(reference, rng)
        path = str(self.images.root / name)
        return {"lq": _to_tensor(degraded), "gt": _to_tensor(reference), "lq_path": path, "gt_path": path}


def _to_tensor(image: np.ndarray) -> Tensor:
    """Convert 8- or 16-bit ``(H, W, C)`` to float32 ``(C, H, W)`` in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1) / np.float32(np.iinfo(image.dtype).max))
