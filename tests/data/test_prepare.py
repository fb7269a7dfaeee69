"""Layout, pairs, bad input, and being killed."""

import json
import logging
import os
import resource
import shutil
import signal
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from killing import stop_at_random_moments

import panet_plugin.data.prepare as module
from panet_plugin.data import BadImageError, Layout, prepare_set, read_image, write_image
from panet_plugin.data.command import run_command
from panet_plugin.degradations import imresize

SIZES = {"0001": (60, 84), "0002": (53, 50), "0003": (24, 40)}
# So that each set takes several.
SMALL_BATCH = 30_000
SETTINGS = {"scales": (2, 3), "subimage": (24, 12)}


@pytest.fixture
def hr_dir(tmp_path):
    """Three images: one of whole multiples, one with a remainder, one as small as a sub-image on one side."""
    for seed, (name, size) in enumerate(SIZES.items()):
        image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        write_image(tmp_path / "hr" / f"{name}.png", image)
    return tmp_path / "hr"


def read_lmdb(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        contents = {key.decode(): bytes(value) for key, value in transaction.cursor()}
    images = {key: cv2.imdecode(np.frombuffer(value, np.uint8), -1)[..., ::-1] for key, value in contents.items()}
    lines = ["{}.png ({},{},{}) 1".format(key, *image.shape) for key, image in sorted(images.items())]
    assert (path / "meta_info.txt").read_text().splitlines() == lines
    return images


def test_layout(tree, hr_dir, tmp_path):
    root = tmp_path / "root"
    assert prepare_set(hr_dir, root, "DIV2K_train", **SETTINGS, folders=True)
    assert prepare_set(hr_dir, root, "DIV2K_valid", scales=[2], subimage=None, folders=True)
    assert {path.name for path in root.iterdir() if not path.name.startswith(".")} == {
        "DIV2K_train.json",
        "DIV2K_train_HR",
        "DIV2K_train_HR_sub",
        "DIV2K_train_HR_sub.lmdb",
        "DIV2K_train_LR_bicubic",
        "DIV2K_train_LR_bicubic_X2_sub.lmdb",
        "DIV2K_train_LR_bicubic_X3_sub.lmdb",
        "DIV2K_valid.json",
        "DIV2K_valid_HR",
        "DIV2K_valid_HR.lmdb",
        "DIV2K_valid_LR_bicubic",
        "DIV2K_valid_LR_bicubic_X2.lmdb",
    }
    folders = {path.name for path in (root / "DIV2K_train_LR_bicubic").iterdir()}
    assert folders == {"X2", "X2_sub", "X3", "X3_sub"}

    crops = {name: read_image(hr_dir / f"{name}.png")[: h // 6 * 6, : w // 6 * 6] for name, (h, w) in SIZES.items()}
    for name, crop in crops.items():
        np.testing.assert_array_equal(read_image(root / f"DIV2K_train_HR/{name}.png"), crop)
        for scale in (2, 3):
            lr = read_image(root / f"DIV2K_train_LR_bicubic/X{scale}/{name}x{scale}.png")
            np.testing.assert_array_equal(lr, imresize(crop, 1 / scale))

    hr = read_lmdb(root / "DIV2K_train_HR_sub.lmdb")
    # 60 x 84: 4 rows of 6. 48 x 48: 3 x 3. 24 x 36: 1 x 2.
    assert len(hr) == 24 + 9 + 2
    np.testing.assert_array_equal(hr["0001_s008"], crops["0001"][12:36, 12:36])
    np.testing.assert_array_equal(hr["0001_s024"], crops["0001"][-24:, -24:])
    for scale in (2, 3):
        lr = read_lmdb(root / f"DIV2K_train_LR_bicubic_X{scale}_sub.lmdb")
        assert lr.keys() == hr.keys()
        whole = imresize(crops["0001"], 1 / scale)
        np.testing.assert_array_equal(lr["0001_s008"], whole[12 // scale : 36 // scale, 12 // scale : 36 // scale])
    for key, image in hr.items():
        np.testing.assert_array_equal(read_image(root / f"DIV2K_train_HR_sub/{key}.png"), image)

    assert read_lmdb(root / "DIV2K_valid_HR.lmdb").keys() == SIZES.keys()
    valid = read_lmdb(root / "DIV2K_valid_LR_bicubic_X2.lmdb")
    np.testing.assert_array_equal(valid["0001"], imresize(crops["0001"], 0.5))

    assert prepare_set(hr_dir, tmp_path / "lmdbs", "DIV2K_train", **SETTINGS)
    for path in (tmp_path / "lmdbs").iterdir():
        if path.suffix == ".lmdb":
            assert tree(path) == tree(root / path.name)
    assert {path.name for path in (tmp_path / "lmdbs").iterdir() if not path.name.startswith(".")} == {
        "DIV2K_train.json",
        "DIV2K_train_HR_sub.lmdb",
        "DIV2K_train_LR_bicubic_X2_sub.lmdb",
        "DIV2K_train_LR_bicubic_X3_sub.lmdb",
    }


def test_batches_of_any_size(hr_dir, tmp_path, monkeypatch):
    """Images, keys and shapes are the same; only the inner order of an LMDB's pages is that of the batches."""
    prepare_set(hr_dir, tmp_path / "one", "train", **SETTINGS)
    monkeypatch.setattr("panet_plugin.data.prepare.BATCH_BYTES", 1)
    prepare_set(hr_dir, tmp_path / "many", "train", **SETTINGS)
    for path in Layout("train", subimages=True).lmdbs(SETTINGS["scales"]):
        one, many = read_lmdb(tmp_path / "one" / path), read_lmdb(tmp_path / "many" / path)
        assert all(np.array_equal(one[key], many[key]) for key in one | many)
    assert (tmp_path / "one/train.json").read_text() == (tmp_path / "many/train.json").read_text()


def test_keys_that_sort_among_the_subimages_of_another(tmp_path):
    for name in ("a", "a_s001", "a_s", "ab"):
        write_image(tmp_path / "hr" / f"{name}.png", np.full((36, 36, 3), len(name), np.uint8))
    prepare_set(tmp_path / "hr", tmp_path / "root", "train", **SETTINGS)
    images = read_lmdb(tmp_path / "root/train_HR_sub.lmdb")
    assert len(images) == 4 * 4
    assert all((image == len(key.rsplit("_s", 1)[0])).all() for key, image in images.items())


def test_no_scales_are_hr_alone(hr_dir, tmp_path):
    prepare_set(hr_dir, tmp_path / "root", "train", scales=(), subimage=None)
    assert list(json.loads((tmp_path / "root/train.json").read_text())["outputs"]) == ["train_HR.lmdb"]
    assert read_lmdb(tmp_path / "root/train_HR.lmdb")["0002"].shape == (*SIZES["0002"], 3)


def test_windows_are_basicsrs():
    """Against the window rule of BasicSR's extract_subimages with threshold 0, for the sizes that DIV2K has."""
    from panet_plugin.data.prepare import _windows

    for height, width in [(1356, 2040), (480, 2040), (1404, 720), (648, 492)]:
        expected = []
        for top in [*range(0, height - 480 + 1, 240)] + ([height - 480] if (height - 480) % 240 else []):
            for left in [*range(0, width - 480 + 1, 240)] + ([width - 480] if (width - 480) % 240 else []):
                expected.append((top, left, top + 480, left + 480))
        assert list(_windows((height, width), 480, 240)) == expected
    assert list(_windows((100, 720), 480, 240)) == [(0, 0, 100, 480), (0, 240, 100, 720)]


def test_layout_names_are_what_was_written(hr_dir, tmp_path):
    prepare_set(hr_dir, tmp_path / "root", "train", **SETTINGS, folders=True)
    layout, scales = Layout("train", subimages=True), SETTINGS["scales"]
    outputs = json.loads((tmp_path / "root" / layout.manifest).read_text())["outputs"]
    assert {*layout.lmdbs(scales), *layout.folders(scales)} == outputs.keys()
    assert all((tmp_path / "root" / path).is_dir() for path in outputs)


def test_16_bit_and_gray(tmp_path):
    gray = np.random.default_rng(0).integers(0, 65536, (24, 24), dtype=np.uint16)
    write_image(tmp_path / "hr" / "gray.png", gray)
    prepare_set(tmp_path / "hr", tmp_path / "root", "train", scales=[2], subimage=None)
    expected = imresize(np.repeat(gray[..., None], 3, axis=2), 0.5)
    np.testing.assert_array_equal(read_lmdb(tmp_path / "root/train_LR_bicubic_X2.lmdb")["gray"], expected)


def test_names_that_lmdb_readers_cannot_take(tmp_path):
    image = np.zeros((24, 24, 3), np.uint8)
    for name in ("a picture.v1.png", "画.png", "plain-name_1.png"):
        write_image(tmp_path / "hr" / name, image)
    prepare_set(tmp_path / "hr", tmp_path / "root", "train", scales=[2], subimage=None, folders=True)
    keys = read_lmdb(tmp_path / "root/train_HR.lmdb").keys()
    assert keys == {"a+20+picture+2e+v1", "+753b+", "plain-name_1"}
    assert (tmp_path / "root/train_LR_bicubic/X2/a+20+picture+2e+v1x2.png").is_file()


# Running again


def test_again_does_nothing(hr_dir, tmp_path):
    root = tmp_path / "root"
    assert prepare_set(hr_dir, root, "train", **SETTINGS)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not prepare_set(hr_dir, root, "train", **SETTINGS)
    # The same images elsewhere, with other times, are the same images.
    shutil.copytree(hr_dir, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    assert not prepare_set(tmp_path / "elsewhere", root, "train", **SETTINGS)
    lock = root / ".train.lock"
    del times[lock]
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path != lock} == times


def change_picture(hr_dir, root):
    write_image(hr_dir / "0002.png", np.zeros((48, 48, 3), np.uint8))
    return SETTINGS


def add_picture(hr_dir, root):
    write_image(hr_dir / "0004.png", np.zeros((48, 48, 3), np.uint8))
    return SETTINGS


def remove_picture(hr_dir, root):
    (hr_dir / "0002.png").unlink()
    return SETTINGS


def other_version(hr_dir, root):
    manifest = json.loads((root / "train.json").read_text())
    manifest["recipe"]["format"] = 1
    (root / "train.json").write_text(json.dumps(manifest))
    return SETTINGS


def other_scales(hr_dir, root):
    return {**SETTINGS, "scales": (2,)}


def other_windows(hr_dir, root):
    return {**SETTINGS, "subimage": None}


def lose_an_output(hr_dir, root):
    shutil.rmtree(root / "train_HR_sub.lmdb")
    return SETTINGS


def lose_a_file(hr_dir, root):
    prepare_set(hr_dir, root, "train", **SETTINGS, folders=True)
    (root / "train_LR_bicubic/X2/0001x2.png").unlink()
    return {**SETTINGS, "folders": True}


def no_folders_any_more(hr_dir, root):
    prepare_set(hr_dir, root, "train", **SETTINGS, folders=True)
    return SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_picture, "1 images are new, changed or missing (0002)"),
        (add_picture, "1 images are new, changed or missing (0004)"),
        (remove_picture, "1 images are new, changed or missing (0002)"),
        (other_version, "made by another version"),
        (other_scales, "scales was [2, 3], is [2]"),
        (other_windows, "subimage was [24, 12], is None"),
        (lose_an_output, "train_HR_sub.lmdb is incomplete"),
        (lose_a_file, "X2 is incomplete, expected 3 images"),
        (no_folders_any_more, "folders was True, is False"),
    ],
)
def test_change_is_said_and_made_anew(tree, hr_dir, tmp_path, caplog, change, message):
    root = tmp_path / "root"
    prepare_set(hr_dir, root, "train", **SETTINGS)
    settings = change(hr_dir, root)
    with caplog.at_level(logging.INFO):
        assert prepare_set(hr_dir, root, "train", **settings)
    assert message in caplog.text
    prepare_set(hr_dir, tmp_path / "fresh", "train", **settings)
    assert tree(root) == tree(tmp_path / "fresh")


# Bad input


def truncate(hr_dir):
    content = (hr_dir / "0002.png").read_bytes()
    (hr_dir / "0002.png").write_bytes(content[: len(content) // 2])
    return "0002.png"


def add_text(hr_dir):
    (hr_dir / "readme.txt").write_text("no image")
    return "readme.txt"


def add_tiny(hr_dir):
    write_image(hr_dir / "tiny.png", np.zeros((5, 40, 3), np.uint8))
    return "tiny.png"


@pytest.mark.parametrize("spoil", [truncate, add_text, add_tiny])
def test_bad_file_is_fatal_or_skipped(tree, hr_dir, tmp_path, caplog, spoil):
    root = tmp_path / "root"
    bad = spoil(hr_dir)
    with pytest.raises(BadImageError, match=bad):
        prepare_set(hr_dir, root, "train", **SETTINGS)
    assert not [path for path in root.iterdir() if not path.name.startswith(".")]

    assert prepare_set(hr_dir, root, "train", skip_bad=True, **SETTINGS)
    assert f"skipped: {hr_dir / bad}" in caplog.text
    assert bad in json.loads((root / "train.json").read_text())["skipped"]
    (hr_dir / bad).unlink()
    prepare_set(hr_dir, tmp_path / "good", "train", **SETTINGS)
    good = tree(tmp_path / "good")
    assert {path: digest for path, digest in tree(root).items() if path != "train.json"} == {
        path: digest for path, digest in good.items() if path != "train.json"
    }


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match="none of the 1 images"):
        prepare_set(tmp_path, tmp_path / "root", "train", skip_bad=True)


def test_duplicate_names(hr_dir, tmp_path):
    write_image(hr_dir / "0001.jpg", np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(BadImageError, match=r"0001\.png has the same name as 0001\.jpg"):
        prepare_set(hr_dir, tmp_path / "root", "train")


def test_folders_that_are_none(tmp_path):
    with pytest.raises(NotADirectoryError, match="gone"):
        prepare_set(tmp_path / "gone", tmp_path / "root", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty contains no images"):
        prepare_set(tmp_path / "empty", tmp_path / "root", "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": [0]}, r"got \[0\]"),
        ({"scales": [1.5]}, r"got \[1.5\]"),
        ({"subimage": (100, 50)}, r"multiples of 12 .* got \(100, 50\)"),
        ({"subimage": (120, 0)}, r"got \(120, 0\)"),
    ],
)
def test_bad_settings(hr_dir, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        prepare_set(hr_dir, tmp_path / "root", "train", **settings)
    with pytest.raises(ValueError, match=r"'\.\./train'"):
        prepare_set(hr_dir, tmp_path / "root", "../train")


def test_folder_of_someone_else_is_not_replaced(tree, hr_dir, tmp_path):
    write_image(tmp_path / "root/train_HR_sub/mine.png", np.zeros((4, 4, 3), np.uint8))
    before = tree(tmp_path / "root")
    with pytest.raises(FileExistsError, match="train_HR_sub exists"):
        prepare_set(hr_dir, tmp_path / "root", "train", **SETTINGS, folders=True)
    assert tree(tmp_path / "root") == before


def test_source_is_never_replaced(tree, hr_dir, tmp_path):
    root = tmp_path / "root"
    prepare_set(hr_dir, root, "train", **SETTINGS, folders=True)
    before = tree(root)
    for subimage in (SETTINGS["subimage"], None):
        with pytest.raises(ValueError, match="train_HR_sub would be replaced"):
            prepare_set(root / "train_HR_sub", root, "train", scales=(2, 3), subimage=subimage)
    assert {path: digest for path, digest in tree(root).items() if ".partial" not in path} == before
    # The HR folder as its own source stays.
    assert prepare_set(root / "train_HR", root, "train", **{**SETTINGS, "scales": (2,)})
    assert {path: digest for path, digest in tree(root).items() if path.startswith("train_HR/")} == {
        path: digest for path, digest in before.items() if path.startswith("train_HR/")
    }


# Given LR images


@pytest.fixture
def lr_dir(hr_dir, tmp_path):
    """LR images that are not bicubic, to tell them from those that would be made."""
    for name, (height, width) in SIZES.items():
        for scale in (2, 3):
            # As MATLAB rounds: upward.
            image = np.full((-(-height // scale), -(-width // scale), 3), 10 * scale, np.uint8)
            write_image(tmp_path / "lr" / f"X{scale}" / f"{name}x{scale}.png", image)
    return tmp_path / "lr"


def test_given_lr(hr_dir, lr_dir, tmp_path):
    prepare_set(hr_dir, tmp_path / "root", "train", lr_dir=lr_dir, **SETTINGS)
    for scale in (2, 3):
        images = read_lmdb(tmp_path / f"root/train_LR_bicubic_X{scale}_sub.lmdb")
        assert images.keys() == read_lmdb(tmp_path / "root/train_HR_sub.lmdb").keys()
        assert all((image == 10 * scale).all() for image in images.values())
        assert images["0002_s001"].shape == (24 // scale, 24 // scale, 3)


def test_given_lr_of_one_scale_needs_no_folder_of_its_own(tree, hr_dir, lr_dir, tmp_path):
    prepare_set(hr_dir, tmp_path / "a", "train", lr_dir=lr_dir, scales=[2], subimage=None)
    prepare_set(hr_dir, tmp_path / "b", "train", lr_dir=lr_dir / "X2", scales=[2], subimage=None)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_lr_of_the_wrong_size(hr_dir, lr_dir, tmp_path):
    write_image(lr_dir / "X3/0001x3.png", np.zeros((20, 29, 3), np.uint8))
    with pytest.raises(BadImageError, match=r"0001x3\.png: 20x29 pixels, expected 20x28 for x3 of 0001\.png"):
        prepare_set(hr_dir, tmp_path / "root", "train", lr_dir=lr_dir, **SETTINGS)


def test_lr_without_hr_and_hr_without_lr(hr_dir, lr_dir, tmp_path):
    (lr_dir / "X2/0001x2.png").rename(lr_dir / "X2/0009x2.png")
    with pytest.raises(BadImageError, match=r"0001\.png has no LR image 0001x2"):
        prepare_set(hr_dir, tmp_path / "root", "train", lr_dir=lr_dir, **SETTINGS)
    shutil.copy(lr_dir / "X2/0009x2.png", lr_dir / "X2/0001x2.png")
    with pytest.raises(BadImageError, match=r"without an HR image in .*: 0009x2\.png"):
        prepare_set(hr_dir, tmp_path / "root", "train", lr_dir=lr_dir, **SETTINGS)


@pytest.mark.parametrize("subimage", [(24, 12), None])
def test_images_in_place_stay_as_they_are(tree, hr_dir, lr_dir, tmp_path, subimage):
    """A downloaded and unpacked set is completed where it is."""
    root = tmp_path / "root"
    shutil.copytree(hr_dir, root / "train_HR")
    shutil.copytree(lr_dir, root / "train_LR_bicubic")
    before = tree(root)
    settings = {"lr_dir": root / "train_LR_bicubic", "scales": (2, 3), "subimage": subimage}
    assert prepare_set(root / "train_HR", root, "train", **settings)
    assert not prepare_set(root / "train_HR", root, "train", **settings)
    assert before.items() <= tree(root).items()
    # Preparing other things from them does not take them for its own either.
    assert prepare_set(root / "train_HR", root, "train", **{**settings, "scales": (2,)})
    assert before.items() <= tree(root).items()

    prepare_set(hr_dir, tmp_path / "apart", "train", **{**settings, "scales": (2,), "lr_dir": lr_dir})
    suffix = "_sub" if subimage else ""
    for name in (f"train_HR{suffix}.lmdb", f"train_LR_bicubic_X2{suffix}.lmdb"):
        ours, apart = read_lmdb(root / name), read_lmdb(tmp_path / "apart" / name)
        assert ours.keys() == apart.keys()


# Being killed


@pytest.mark.parametrize("given", [False, True])
def test_crop_keeps_the_middle(hr_dir, lr_dir, tmp_path, given):
    root = tmp_path / "root"
    settings = {"scales": (2, 3), "subimage": None, "lr_dir": lr_dir if given else None}
    prepare_set(hr_dir, tmp_path / "whole", "DIV2K_valid", **settings)
    prepare_set(hr_dir, root, "DIV2K_valid", crop=36, **settings)
    layout = Layout("DIV2K_valid")
    for path, scale in ((layout.hr_lmdb, 1), (layout.lr_lmdb(2), 2), (layout.lr_lmdb(3), 3)):
        whole, cropped = read_lmdb(tmp_path / "whole" / path), read_lmdb(root / path)
        # 60x84: 12 rows and 24 columns are left out on either side, 24x40 is cut to 24x36.
        middle = np.s_[12 // scale : 48 // scale, 24 // scale : 60 // scale]
        np.testing.assert_array_equal(cropped["0001"], whole["0001"][middle])
        assert cropped["0003"].shape == (24 // scale, 36 // scale, 3)


def test_cropping_images_in_place_leaves_them_whole(tree, hr_dir, tmp_path):
    layout, root = Layout("DIV2K_valid"), tmp_path / "root"
    shutil.copytree(hr_dir, root / layout.hr)
    before = tree(root / layout.hr)
    prepare_set(root / layout.hr, root, "DIV2K_valid", scales=[2], subimage=None, crop=24)
    assert tree(root / layout.hr) == before
    assert read_lmdb(root / layout.hr_lmdb)["0001"].shape == (24, 24, 3)


def prepare(hr_dir, root, settings):
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    module.BATCH_BYTES = SMALL_BATCH
    prepare_set(hr_dir, root, "train", **settings)


def prepare_and_die(hr_dir, root, settings, steps):
    """Prepare, but be killed at a step that changes the disk: half-way through writing, before moving or removing."""
    left = steps

    def dying(function):
        def step(*arguments, **keywords):
            nonlocal left
            left -= 1
            if left < 0:
                if function is fsync:
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)

        return step

    fsync = os.fsync
    os.fsync = dying(fsync)
    for name in ("replace", "unlink"):
        setattr(Path, name, dying(getattr(Path, name)))
    module.append_to_lmdb = dying(module.append_to_lmdb)
    shutil.rmtree = dying(shutil.rmtree)
    prepare(hr_dir, root, settings)


def run(context, target, *arguments):
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES", SMALL_BATCH)


@pytest.mark.parametrize("earlier", [None, {"scales": (2, 4), "subimage": (24, 12)}], ids=["fresh", "replacing"])
def test_killed_at_every_step(tree, small_batches, context, hr_dir, tmp_path, earlier):
    """Whatever step a run dies at, the next one ends in the same bytes; so does one with other settings in between."""
    settings = {"scales": (2,), "subimage": (24, 24), "workers": 1, "folders": bool(earlier)}
    (hr_dir / "0002.png").unlink()
    prepare_set(hr_dir, tmp_path / "whole", "train", **settings)
    whole = tree(tmp_path / "whole")
    for steps in range(0, 200, 3 if earlier else 1):
        root = tmp_path / "root"
        shutil.rmtree(root, ignore_errors=True)
        if earlier:
            prepare_set(hr_dir, root, "train", **earlier)
        if run(context, prepare_and_die, hr_dir, root, settings, steps) == 0:
            break
        if steps % 2 == 0:
            prepare_set(hr_dir, root, "train", scales=(2,), subimage=None)
        prepare_set(hr_dir, root, "train", **settings)
        assert tree(root) == whole, steps
    # Batches, their records, recipe, manifests and moves: the run could die in many places.
    assert 15 < steps < 198
    assert tree(root) == whole


def test_killed_at_random_moments(tree, small_batches, context, hr_dir, tmp_path):
    """The same run is killed again and again, while it takes up what the killed ones left."""
    for seed in range(8):
        image = np.random.default_rng(seed).integers(0, 256, (120, 120, 3), dtype=np.uint8)
        write_image(hr_dir / f"more{seed}.png", image)
    assert run(context, prepare, hr_dir, tmp_path / "whole", SETTINGS) == 0

    def start():
        process = context.Process(target=prepare, args=(hr_dir, tmp_path / "root", SETTINGS))
        process.start()
        return process

    stop_at_random_moments(start, 4, undo=lambda: shutil.rmtree(tmp_path / "root"))
    assert run(context, prepare, hr_dir, tmp_path / "root", SETTINGS) == 0
    assert tree(tmp_path / "root") == tree(tmp_path / "whole")


def prepare_as_script(ready, *arguments):
    # Where the tests run in the background, a shell has them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def work():
        ready.set()
        prepare(*arguments)

    run_command("script", work)


def test_interrupted_at_random_moments(tree, small_batches, context, hr_dir, tmp_path):
    """Ctrl-C stops a script within moments, and the same command goes on."""
    settings = {**SETTINGS, "workers": 2}
    for seed in range(20):
        image = np.random.default_rng(seed).integers(0, 256, (120, 120, 3), dtype=np.uint8)
        write_image(hr_dir / f"more{seed}.png", image)
    ready = context.Event()
    assert run(context, prepare_as_script, ready, hr_dir, tmp_path / "whole", settings) == 0

    def start():
        ready.clear()
        process = context.Process(target=prepare_as_script, args=(ready, hr_dir, tmp_path / "root", settings))
        process.start()
        ready.wait()
        return process

    def undo():
        shutil.rmtree(tmp_path / "root")

    stop_at_random_moments(start, 3, undo, with_signal=signal.SIGINT, code=130)
    assert run(context, prepare_as_script, ready, hr_dir, tmp_path / "root", settings) == 0
    assert tree(tmp_path / "root") == tree(tmp_path / "whole")


def test_two_at_once(tree, small_batches, context, hr_dir, tmp_path):
    prepare_set(hr_dir, tmp_path / "whole", "train", **SETTINGS)
    processes = [context.Process(target=prepare, args=(hr_dir, tmp_path / "root", SETTINGS)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert tree(tmp_path / "root") == tree(tmp_path / "whole")


def test_number_of_threads_changes_nothing(tree, hr_dir, tmp_path):
    for workers in (1, 5):
        prepare_set(hr_dir, tmp_path / str(workers), "train", workers=workers, **SETTINGS)
    assert tree(tmp_path / "1") == tree(tmp_path / "5")


@pytest.mark.parametrize("limit", [3_000, 20_000, 60_000])
def test_disk_that_takes_no_more_is_taken_up_later(tree, small_batches, hr_dir, tmp_path, limit):
    """Files cannot grow above a limit: a PNG, the LMDB of the first batch, and that of a later one are cut off."""
    root, settings = tmp_path / "root", {**SETTINGS, "folders": True}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError, match=r"\.lmdb|\.png|File too large"):
            prepare_set(hr_dir, root, "train", **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not [path for path in root.iterdir() if not path.name.startswith(".")]
    prepare_set(hr_dir, root, "train", **settings)
    prepare_set(hr_dir, tmp_path / "whole", "train", **settings)
    assert tree(root) == tree(tmp_path / "whole")


@pytest.mark.parametrize("folders", [False, True])
def test_long_names_of_any_letters(tmp_path, folders):
    names = ["Длинное" * 16, "Длинное" * 16 + "я", "x" * 240]
    for seed, name in enumerate(names):
        image = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        write_image(tmp_path / "hr" / f"{name}.png", image)
    prepare_set(tmp_path / "hr", tmp_path / "out", "train", scales=(2,), subimage=(12, 12), folders=folders, workers=1)
    keys = (tmp_path / "out/train_HR_sub.lmdb/meta_info.txt").read_text().split("\n")
    assert len({key.split()[0] for key in keys if key}) == 3 * 4
