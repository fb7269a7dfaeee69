"""Pairs of low-quality images and ground truth, and what is said of those that cannot be read."""

import logging

import lmdb
import numpy as np
import pytest

from panet_plugin.data import BadImageError, PairedImages, Tolerance, prepare_set, read_image, write_image


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(["a", "b", "c"]):
        image = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8)
        write_image(tmp_path / "hr" / f"{name}.png", image)
    prepare_set(tmp_path / "hr", tmp_path / "root", "set", scales=(2,), subimage=None)
    return tmp_path / "root"


@pytest.fixture
def pairs(root):
    return PairedImages(root / "set_LR_bicubic_X2.lmdb", root / "set_HR.lmdb", 2)


def change(path, key, content):
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.delete(key.encode()) if content is None else transaction.put(key.encode(), content)


def test_pairs(pairs, tmp_path):
    assert pairs.names == ["a", "b", "c"] and len(pairs) == 3
    lq, gt = pairs.read("b", patch=12)
    assert lq.shape == (12, 18, 3)
    np.testing.assert_array_equal(gt, read_image(tmp_path / "hr/b.png"))


def test_rows_beyond_the_last_whole_pixel_are_cut_off(tmp_path):
    write_image(tmp_path / "lq/a.png", np.zeros((5, 6, 3), np.uint8))
    write_image(tmp_path / "gt/a.png", np.zeros((17, 19, 3), np.uint8))
    assert PairedImages(tmp_path / "lq", tmp_path / "gt", 3).read("a")[1].shape == (15, 18, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such record, expected an image"), (b"\x89PNG\r\n\x1a\n", ""), (b"", ""), (b"hello", "")],
)
def test_what_cannot_be_read_is_named(root, content, message):
    change(root / "set_LR_bicubic_X2.lmdb", "b", content)
    pairs = PairedImages(root / "set_LR_bicubic_X2.lmdb", root / "set_HR.lmdb", 2)
    with pytest.raises(BadImageError, match=rf"set_LR_bicubic_X2\.lmdb: b.*{message}"):
        pairs.read("b")


def test_other_sizes_and_swapped_sets_are_named(root, tmp_path):
    swapped = PairedImages(root / "set_HR.lmdb", root / "set_LR_bicubic_X2.lmdb", 2)
    with pytest.raises(BadImageError, match=r"a has 24x36 pixels in .*HR\.lmdb and 12x18 in .*X2\.lmdb, expected 48"):
        swapped.read("a")
    with pytest.raises(BadImageError, match=r"X2\.lmdb: a has 12x18 pixels, expected at least 13x13 for a patch"):
        PairedImages(root / "set_LR_bicubic_X2.lmdb", root / "set_HR.lmdb", 2).read("a", patch=13)
    write_image(tmp_path / "one/a.png", np.zeros((24, 37, 3), np.uint8))
    write_image(tmp_path / "two/a.png", np.zeros((12, 18, 3), np.uint8))
    assert PairedImages(tmp_path / "two", tmp_path / "one", 2).read("a")[1].shape == (24, 36, 3)
    write_image(tmp_path / "one/a.png", np.zeros((24, 35, 3), np.uint8))
    with pytest.raises(BadImageError, match="expected 24x36 there for scale 2"):
        PairedImages(tmp_path / "two", tmp_path / "one", 2).read("a")


def test_images_in_one_set_alone_are_named(root, tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / f"two/{name}.png", np.zeros((12, 18, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected the same images in both, but 1 are in only one, such as c"):
        PairedImages(tmp_path / "two", root / "set_HR.lmdb", 2)


def test_a_limited_number_is_passed_over(caplog):
    def read(name):
        if name in "bc":
            raise BadImageError(f"{name} is damaged")
        return name

    tolerance = Tolerance(2)
    with caplog.at_level(logging.WARNING):
        assert tolerance.read(read, "abcd", 1) == "d"
    assert "b is damaged; using the next image instead; 1 more" in caplog.text
    with pytest.raises(BadImageError, match="c is damaged"):
        tolerance.read(read, "abcd", 2)
    with pytest.raises(BadImageError, match="b is damaged"):
        Tolerance().read(read, "abcd", 1)
    assert Tolerance(1).read(read, "ac", 1) == "a"


def test_the_datasets_of_both_frameworks_read_the_same(root):
    import panet_plugin.frameworks.basicsr
    import panet_plugin.frameworks.mmagic  # noqa: F401 - registers the datasets

    # isort: split
    from basicsr.data import build_dataset
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope("mmagic")
    names = {"gt": "set_HR.lmdb", "img": "set_LR_bicubic_X{scale}.lmdb"}
    theirs = DATASETS.build({"type": "PairedLMDBDataset", "data_root": str(root), "scale": 2, **names})
    folders = {"dataroot_gt": str(root / "set_HR.lmdb"), "dataroot_lq": str(root / "set_LR_bicubic_X2.lmdb")}
    options = {"type": "PairedLMDBDataset", "name": "x", "phase": "val", "scale": 2, **folders}
    ours = build_dataset(options)
    for sample, pair in zip(theirs, ours, strict=True):
        for one, other in (("img", "lq"), ("gt", "gt")):
            pixels = np.rint(pair[other].double().numpy().transpose(1, 2, 0) * 255)
            np.testing.assert_array_equal(pixels, sample[one])
            assert sample[f"{one}_path"] == pair[f"{other}_path"]


def test_patches_are_those_of_basicsrs_own_dataset(root):
    import random

    import panet_plugin.frameworks.basicsr  # noqa: F401 - registers the datasets

    # isort: split
    from basicsr.data import build_dataset

    folders = {"dataroot_gt": str(root / "set_HR.lmdb"), "dataroot_lq": str(root / "set_LR_bicubic_X2.lmdb")}
    options = {"name": "x", "phase": "train", "scale": 2, "gt_size": 8, "use_hflip": True, "use_rot": True, **folders}
    found = []
    for kind in ("PairedLMDBDataset", "PairedImageDataset"):
        dataset = build_dataset({**options, "type": kind, "io_backend": {"type": "lmdb"}})
        order = {dataset[i]["gt_path"].split("/")[-1]: i for i in range(3)}
        random.seed(0)
        found.append([dataset[order[name]] for name in "abcabc"])
        del dataset
    for mine, theirs in zip(*found, strict=True):
        for key in ("lq", "gt"):
            np.testing.assert_allclose(mine[key], theirs[key], rtol=0, atol=1e-6)
