"""Sets in shards: made in several processes, read as one LMDB, and refused where they are not whole."""

import json
import logging
import os
import re
import shutil

import numpy as np
import pytest
from killing import stop_at_random_moments

import panet_plugin.data.prepare as module
from panet_plugin.data import BadImageError, CleanImages, PairedImages, prepare_set, write_image
from panet_plugin.data.lmdb_reader import LmdbRecords
from panet_plugin.data.shards import Shard
from panet_plugin.data.verify import verify_root

SETTINGS = {"scales": (2,), "subimage": (24, 12), "workers": 1}
HR, LR = "train_HR_sub.lmdb", "train_LR_bicubic_X2_sub.lmdb"


def prepare(hr_dir, root, shard):
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    module.BATCH_BYTES = 10_000
    prepare_set(hr_dir, root, "train", **SETTINGS, shard=shard)


@pytest.fixture(scope="module")
def hr_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hr")
    for number in range(7):
        image = np.random.default_rng(number).integers(0, 256, (48, 36 + 12 * (number % 2), 3), dtype=np.uint8)
        write_image(folder / f"{number}.png", image)
    return folder


@pytest.fixture(scope="module")
def one(hr_dir, tmp_path_factory):
    """The set in one LMDB."""
    root = tmp_path_factory.mktemp("one")
    prepare_set(hr_dir, root, "train", **SETTINGS)
    return root


@pytest.fixture(scope="module")
def prepared(hr_dir, context, tmp_path_factory):
    """The set in two shards, made in two processes at once."""
    root = tmp_path_factory.mktemp("shards")
    processes = [context.Process(target=prepare, args=(hr_dir, root, Shard(number, 2))) for number in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    return root


@pytest.fixture
def root(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "root")
    return tmp_path / "root"


def test_shards_are_read_as_one_lmdb(one, prepared):
    whole, parts = (PairedImages(root / LR, root / HR, 2) for root in (one, prepared))
    assert parts.names == whole.names
    assert len(parts) > 40
    assert set(parts.shards) == {0, 1}
    assert not whole.shards.any()
    for name in whole.names:
        for expected, found in zip(whole.read(name), parts.read(name), strict=True):
            np.testing.assert_array_equal(found, expected)
    # Neighbors are in different shards, the parts of an image in one.
    assert [shard for name, shard in zip(parts.names, parts.shards, strict=True) if name.endswith("_s001")] == [
        number % 2 for number in range(7)
    ]


def test_a_shard_is_opened_when_it_is_read(prepared):
    images = CleanImages(prepared / HR)
    assert not images._lmdbs
    images.read(images.names[-1])
    assert list(images._lmdbs) == [images.shards[-1]]


def test_the_manifest_comes_with_the_last_shard(hr_dir, prepared, tmp_path, caplog):
    caplog.set_level("INFO")
    prepare_set(hr_dir, tmp_path, "train", **SETTINGS, shard=Shard(2, 2))
    assert "shards left to prepare: 1/2" in caplog.text
    assert not (tmp_path / "train.json").exists()
    with pytest.raises(BadImageError, match=r"1-of-2\.lmdb: no such shard, 1 of 2 are missing: .* --shard 1/2"):
        CleanImages(tmp_path / HR)
    assert prepare_set(hr_dir, tmp_path, "train", **SETTINGS, shard=Shard(1, 2))
    assert (tmp_path / "train.json").read_bytes() == (prepared / "train.json").read_bytes()
    assert not prepare_set(hr_dir, tmp_path, "train", **SETTINGS, shard=Shard(1, 2))
    assert len(CleanImages(tmp_path / HR)) == len(CleanImages(prepared / HR))


def test_a_killed_shard_goes_on(tree, hr_dir, context, prepared, tmp_path, monkeypatch):
    shard = Shard(1, 2)
    monkeypatch.setattr(module, "BATCH_BYTES", 10_000)

    def start():
        process = context.Process(target=prepare, args=(hr_dir, tmp_path, shard))
        process.start()
        return process

    stop_at_random_moments(start, 2, undo=lambda: [shutil.rmtree(path) for path in tmp_path.glob("train*.lmdb")])
    prepare_set(hr_dir, tmp_path, "train", **SETTINGS, shard=shard)
    for lmdb in (HR, LR):
        assert tree(tmp_path / lmdb / f"{shard}.lmdb") == tree(prepared / lmdb / f"{shard}.lmdb")


@pytest.mark.parametrize("shard", [Shard(1, 3), None])
def test_another_number_of_shards_is_refused(hr_dir, root, shard):
    with pytest.raises(ValueError, match="train has 2 shards: use --shard 1/2"):
        prepare_set(hr_dir, root, "train", **SETTINGS, shard=shard)


def test_shards_of_other_settings_or_images_are_refused(hr_dir, root, tmp_path):
    with pytest.raises(ValueError, match=r"train-2-of-2\.json: scales is \[2\], expected \[3\]"):
        prepare_set(hr_dir, root, "train", **{**SETTINGS, "scales": (3,)}, shard=Shard(1, 2))
    shutil.copytree(hr_dir, tmp_path / "more")
    shutil.copy(hr_dir / "1.png", tmp_path / "more/new.png")
    with pytest.raises(ValueError, match=r"train-2-of-2\.json: pictures is .*'count': 7.* expected .*'count': 8"):
        prepare_set(tmp_path / "more", root, "train", **SETTINGS, shard=Shard(1, 2))


def test_a_set_in_no_shards_stays(tree, hr_dir, one):
    before = tree(one)
    with pytest.raises(FileExistsError, match=r"train\.json: an unsharded set"):
        prepare_set(hr_dir, one, "train", **SETTINGS, shard=Shard(1, 2))
    assert tree(one) == before


def test_what_cannot_be_divided_is_refused(hr_dir, tmp_path):
    with pytest.raises(ValueError, match="7 images, expected at least one for each of 8 shards"):
        prepare_set(hr_dir, tmp_path, "train", **SETTINGS, shard=Shard(1, 8))
    with pytest.raises(ValueError, match="without folders"):
        prepare_set(hr_dir, tmp_path, "train", **SETTINGS, shard=Shard(1, 2), folders=True)
    assert Shard.parse("3/8") == (3, 8)
    for text in ("0/8", "9/8", "3", "3/", "-1/8", "3-of-8"):
        with pytest.raises(ValueError, match="expected a shard such as 3/8"):
            Shard.parse(text)


def removed(root):
    shutil.rmtree(root / HR / "1-of-2.lmdb")
    return r"1-of-2\.lmdb: no such shard", r"1-of-2\.lmdb: missing"


def doubled(root):
    shutil.rmtree(root / HR / "2-of-2.lmdb")
    shutil.copytree(root / HR / "1-of-2.lmdb", root / HR / "2-of-2.lmdb")
    return r"2-of-2\.lmdb: 0_s001 is in .*1-of-2\.lmdb too", r"2-of-2\.lmdb: \d+ images, expected \d+"


def divided_twice(root):
    shutil.copytree(root / HR / "1-of-2.lmdb", root / HR / "1-of-3.lmdb")
    return r"contains 1-of-2\.lmdb and 1-of-3\.lmdb", r"1-of-3\.lmdb: no manifest lists"


def torn(root):
    path = root / HR / "2-of-2.lmdb/data.mdb"
    os.truncate(path, path.stat().st_size // 2)
    return r"2-of-2\.lmdb/data\.mdb: damaged, or not an LMDB: it ends after", r"2-of-2\.lmdb"


def without_list(root):
    (root / HR / "2-of-2.lmdb/meta_info.txt").unlink()
    return r"2-of-2\.lmdb/meta_info\.txt: missing", r"2-of-2\.lmdb/meta_info\.txt: does not list"


def with_another_list(root):
    path = root / HR / "2-of-2.lmdb/meta_info.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    return r"2-of-2\.lmdb: 27 images, expected 26 as", r"2-of-2\.lmdb/meta_info\.txt: does not list"


@pytest.mark.parametrize("change", [removed, doubled, divided_twice, torn, without_list, with_another_list])
def test_what_is_not_whole_is_named(root, change):
    read, verified = change(root)
    with pytest.raises(BadImageError, match=read):
        CleanImages(root / HR)
    problems = verify_root(root)
    assert any(re.search(verified, problem) for problem in problems), problems


def test_verify_knows_shards(root, hr_dir, caplog):
    caplog.set_level("INFO")
    assert verify_root(root) == []
    assert f"{root / HR / '2-of-2.lmdb'}: " in caplog.text
    file, record = root / HR / "2-of-2.lmdb/data.mdb", LmdbRecords(root / HR / "2-of-2.lmdb")[b"3_s002"]
    file.write_bytes(file.read_bytes().replace(record, record[:-20] + bytes(20)))
    (problem,) = verify_root(root)
    assert problem.endswith("2-of-2.lmdb: images differ from those that were made; damaged: 3_s002.png")
    shutil.rmtree(root / HR / "2-of-2.lmdb")
    prepare_set(hr_dir, root, "train", **SETTINGS, shard=Shard(2, 2))
    assert verify_root(root) == []
    (root / "train.json").write_text(json.dumps({"shards": {}}))
    (problem,) = verify_root(root)
    assert "train.json: missing, or of other shards" in problem
    (root / "train-1-of-2.json").unlink()
    (problem,) = verify_root(root)
    assert problem.endswith("train-1-of-2.json: missing: this shard was not prepared")
