"""Pairs of images from the LMDBs that data_prep/ writes, through MMagic's own dataset and transforms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mmagic.datasets import BasicImageDataset
from mmengine.registry import DATASETS


@DATASETS.register_module()
class PairedLMDBDataset(BasicImageDataset):
    """Low-quality and ground-truth images of two LMDBs with equal keys, as RGB.

    Loading, and cropping if asked for, are put before ``pipeline``: what depends on the paths and on the scale is so
    said once.

    Args:
        data_root: Folder of both LMDBs.
        img: LMDB of the low-quality images; ``{scale}`` in it stands for the scale.
        gt: LMDB of the ground truth.
        scale: Factor from the sides of the low-quality images to those of the ground truth.
        pipeline: Transforms after loading and cropping.
        patch_size: Side in pixels of the random patch cut from the low-quality image; ``None`` keeps the whole.
        **kwargs: Further arguments of ``mmengine.dataset.BaseDataset``, such as ``indices`` and ``test_mode``.

    Raises:
        FileNotFoundError: If one of the LMDBs does not exist.
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
        **kwargs: Any,
    ) -> None:
        self.scale = scale
        databases = {"img": Path(data_root, img.format(scale=scale)), "gt": Path(data_root, gt.format(scale=scale))}
        for database in databases.values():
            if not Path(database, "data.mdb").is_file():
                raise FileNotFoundError(f"{database}: no such LMDB; data_prep/make_lmdb.py makes it")
        before = [
            {
                "type": "LoadImageFromFile",
                "key": key,
                "channel_order": "rgb",
                "imdecode_backend": "cv2",
                "backend_args": {"backend": "lmdb", "db_path": str(database)},
            }
            for key, database in databases.items()
        ]
        if patch_size:
            before.append({"type": "PairedRandomCrop", "gt_patch_size": patch_size * scale})
        super().__init__(
            ann_file=f"{databases['gt'].name}/meta_info.txt",
            data_root=data_root,
            data_prefix={"img": "", "gt": ""},
            pipeline=[*before, *pipeline],
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Return the keys of the images, with the scale that MMagic's paired transforms ask for."""
        return [{**sample, "scale": self.scale} for sample in super().load_data_list()]
