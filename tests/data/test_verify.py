"""Whatever is changed in a prepared set is noticed."""

import json
import re
import runpy
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import lmdb
import numpy as np
import pytest

from panet_plugin.data import prepare_set, write_image
from panet_plugin.data.verify import verify_root

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A training set with folders, and a validation set whose images are in place."""
    root = tmp_path_factory.mktemp("verify")
    for number in range(5):
        image = np.random.default_rng(number).integers(0, 256, (36, 48, 3), dtype=np.uint8)
        write_image(root / f"valid_HR/{number}.png", image)
    prepare_set(root / "valid_HR", root, "train", scales=[2], subimage=(24, 24), folders=True)
    prepare_set(root / "valid_HR", root, "valid", scales=[2], subimage=None)
    return root


@pytest.fixture
def root(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "root")
    return tmp_path / "root"


def test_untouched(root, caplog):
    caplog.set_level("INFO")
    assert verify_root(root) == []
    for output in ("train_HR_sub.lmdb", "train_LR_bicubic/X2_sub", "valid_LR_bicubic_X2.lmdb", "valid_HR"):
        assert f"{root / output}: " in caplog.text


@contextmanager
def writing(path):
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as transaction:
        yield transaction


def change_value(path, key, change):
    with writing(path) as transaction:
        content = bytearray(transaction.get(key))
        change(content)
        transaction.put(key, bytes(content))


def flip(content):
    content[len(content) // 2] ^= 255


def flipped_byte(root):
    change_value(root / "train_HR_sub.lmdb", b"2_s003", flip)
    return r"train_HR_sub\.lmdb: images differ from those that were made; damaged: 2_s003\.png"


def exchanged_images(root):
    with writing(root / "valid_HR.lmdb") as transaction:
        one, two = transaction.get(b"1"), transaction.get(b"2")
        transaction.put(b"1", two)
        transaction.put(b"2", one)
    return r"valid_HR\.lmdb: images differ from those that were made$"


def removed_image(root):
    with writing(root / "train_HR_sub.lmdb") as transaction:
        transaction.delete(b"2_s003")
    return r"train_HR_sub\.lmdb: 19 images, expected 20"


def other_keys(root):
    with writing(root / "train_HR_sub.lmdb") as transaction:
        transaction.put(b"new", transaction.pop(b"2_s003"))
    return r"train_HR_sub\.lmdb, train_LR_bicubic_X2_sub\.lmdb have different keys"


def cut_lmdb(root):
    with (root / "train_HR_sub.lmdb/data.mdb").open("r+b") as file:
        file.truncate(10)
    return r"train_HR_sub\.lmdb/data\.mdb: damaged"


def other_shape_in_meta_info(root):
    path = root / "train_HR_sub.lmdb/meta_info.txt"
    path.write_text(path.read_text().replace("(24,24,3)", "(24,24,1)", 1))
    return r"meta_info\.txt: does not list"


def no_meta_info(root):
    (root / "valid_HR.lmdb/meta_info.txt").unlink()
    return r"meta_info\.txt: does not list"


def removed_lmdb(root):
    shutil.rmtree(root / "valid_LR_bicubic_X2.lmdb")
    return r"valid_LR_bicubic_X2\.lmdb: missing"


def damaged_file(root):
    content = bytearray((root / "train_LR_bicubic/X2/3x2.png").read_bytes())
    flip(content)
    (root / "train_LR_bicubic/X2/3x2.png").write_bytes(content)
    return r"X2: images differ from those that were made; damaged: 3x2\.png"


def added_file(root):
    shutil.copy(root / "train_HR/1.png", root / "train_HR/9.png")
    return "train_HR: 6 images, expected 5"


def changed_picture_in_place(root):
    write_image(root / "valid_HR/4.png", np.zeros((36, 48, 3), np.uint8))
    return r"valid_HR: changed or missing since the set was made: 4\.png"


def added_picture_in_place(root):
    shutil.copy(root / "valid_HR/1.png", root / "valid_HR/9.png")
    return r"valid_HR: new since the set was made: 9\.png"


def flipped_byte_that_decodes(root):
    """The checksum of a chunk: decoders do not look at it."""
    change_value(root / "train_HR_sub.lmdb", b"2_s003", lambda content: content.__setitem__(-13, content[-13] ^ 1))
    return r"damaged: 2_s003\.png"


def unfinished(root):
    (root / "train.json").unlink()
    (root / ".train.partial").mkdir()
    (root / ".train.partial/recipe.json").write_text('{"name": "train"}')
    return r"train\.json: the preparation was interrupted"


def interrupted(root):
    manifest = json.loads((root / "train.json").read_text())
    (root / "train.json").write_text(json.dumps({**manifest, "recipe": None}))
    return r"train\.json: the preparation was interrupted"


def other_version(root):
    manifest = json.loads((root / "train.json").read_text())
    manifest["recipe"]["format"] = 1
    (root / "train.json").write_text(json.dumps(manifest))
    return r"another version .* \(format 1"


@pytest.mark.parametrize(
    "change",
    [
        *(flipped_byte, exchanged_images, removed_image, other_keys, cut_lmdb, other_shape_in_meta_info, no_meta_info),
        *(removed_lmdb, damaged_file, added_file, changed_picture_in_place, added_picture_in_place, interrupted),
        *(flipped_byte_that_decodes, unfinished, other_version),
    ],
)
def test_change_is_noticed(root, change):
    message = change(root)
    problems = verify_root(root)
    assert any(re.search(message, problem) for problem in problems), problems
    # Nothing else is blamed.
    assert len(problems) <= (1 if "damaged: " in message else 3), problems


def test_folder_without_sets(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no prepared set"):
        verify_root(tmp_path)


def test_images_that_are_not_of_the_set(tmp_path):
    """All images lie in one folder, of which a set takes a part."""
    for number in range(3):
        write_image(tmp_path / f"train_HR/{number}.png", np.full((8, 8, 3), number, np.uint8))
    prepare_set(tmp_path / "train_HR", tmp_path, "train", names=["0", "1"], scales=[2], subimage=None)
    assert verify_root(tmp_path) == []


def test_damaged_manifest(root):
    (root / "train.json").write_text('{"recipe":')
    with pytest.raises(ValueError, match=r"train\.json: damaged"):
        verify_root(root)


def test_script(root, monkeypatch, caplog):
    script = str(REPOSITORY / "data_prep/verify.py")
    monkeypatch.setattr(sys, "argv", ["verify.py", str(root), "--workers", "1"])
    caplog.set_level("INFO")
    runpy.run_path(script, run_name="__main__")
    assert "20 images, all unchanged" in caplog.text
    removed_lmdb(root)
    with pytest.raises(SystemExit, match=r"valid_LR_bicubic_X2\.lmdb: missing"):
        runpy.run_path(script, run_name="__main__")
