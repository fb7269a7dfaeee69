"""Both frameworks' own datasets read the prepared LMDBs and folders: the right pairs, in the right colors."""

from pathlib import Path

import numpy as np
import pytest

from panet_plugin.data import prepare_set, read_image, write_image


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for seed, name in enumerate(["b", "a", "c 1"]):
        image = np.random.default_rng(seed).integers(0, 256, (48, 60, 3), dtype=np.uint8)
        write_image(folder / "hr" / f"{name}.png", image)
    prepare_set(folder / "hr", folder / "root", "train", scales=(2, 3), subimage=(24, 12), folders=True)
    prepare_set(folder / "hr", folder / "root", "valid", scales=(2, 3), subimage=None, folders=True)
    return folder / "root"


CASES = {
    # LMDBs of LR and HR images; their folders and the file name of an LR image there.
    "train": ("train_LR_bicubic_X3_sub.lmdb", "train_HR_sub.lmdb", "train_LR_bicubic/X3_sub", "train_HR_sub", "{}"),
    "valid": ("valid_LR_bicubic_X3.lmdb", "valid_HR.lmdb", "valid_LR_bicubic/X3", "valid_HR", "{}x3"),
}


def assert_same_pairs(pairs, root, case):
    """Pairs of (key, LR, HR) in RGB are all that is in the folders, in order."""
    _, _, lr_folder, hr_folder, template = CASES[case]
    keys = sorted(path.stem for path in (root / hr_folder).iterdir())
    assert [key for key, _, _ in pairs] == keys
    for key, lr, hr in pairs:
        np.testing.assert_array_equal(lr, read_image(root / lr_folder / f"{template.format(key)}.png"))
        np.testing.assert_array_equal(hr, read_image(root / hr_folder / f"{key}.png"))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["lmdb", "disk"])
def test_basicsr(root, case, backend):
    from panet_plugin.frameworks.compat import enable_basicsr

    enable_basicsr()
    from basicsr.data.paired_image_dataset import PairedImageDataset

    lr_lmdb, hr_lmdb, lr_folder, hr_folder, template = CASES[case]
    lq, gt = (lr_lmdb, hr_lmdb) if backend == "lmdb" else (lr_folder, hr_folder)
    options = {
        "dataroot_gt": str(root / gt),
        "dataroot_lq": str(root / lq),
        "io_backend": {"type": backend},
        "filename_tmpl": template,
        "scale": 3,
        "phase": "val",
    }
    pairs = []
    for sample in PairedImageDataset(options):
        lr, hr = (np.rint(sample[key].numpy().transpose(1, 2, 0) * 255).astype(np.uint8) for key in ("lq", "gt"))
        pairs.append((Path(sample["gt_path"]).stem, lr, hr))
    assert_same_pairs(sorted(pairs, key=lambda pair: pair[0]), root, case)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["lmdb", "local"])
def test_mmagic(root, case, backend):
    from panet_plugin.frameworks.compat import enable_mmagic

    enable_mmagic()
    from mmagic.datasets import BasicImageDataset

    lr_lmdb, hr_lmdb, lr_folder, hr_folder, template = CASES[case]
    if backend == "lmdb":
        where = {"data_root": str(root), "ann_file": f"{hr_lmdb}/meta_info.txt", "data_prefix": {"img": "", "gt": ""}}
        loading = [{"backend": "lmdb", "db_path": str(root / name)} for name in (lr_lmdb, hr_lmdb)]
    else:
        where = {
            "data_root": str(root),
            "data_prefix": {"img": lr_folder, "gt": hr_folder},
            "filename_tmpl": {"img": template, "gt": "{}"},
        }
        loading = [None, None]
    pipeline = [
        {"type": "mmagic.LoadImageFromFile", "key": key, "channel_order": "rgb", "backend_args": backend_args}
        for key, backend_args in zip(("img", "gt"), loading, strict=True)
    ]
    dataset = BasicImageDataset(**where, pipeline=pipeline, metainfo={"dataset_type": "x", "task_name": "sisr"})
    pairs = [(Path(sample["gt_path"]).stem, sample["img"], sample["gt"]) for sample in dataset]
    assert_same_pairs(sorted(pairs, key=lambda pair: pair[0]), root, case)
