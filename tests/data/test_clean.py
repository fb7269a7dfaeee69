"""Clean images from folders and LMDBs: names, sharing of LMDBs, and every kind of file."""

import multiprocessing
import pickle
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from panet_plugin.data import BadImageError, CleanImages, fresh_rng, prepare_set, write_image
from panet_plugin.tasks import TASKS, make_task

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (24, 20, 3), dtype=np.uint8)


@pytest.fixture
def both(tmp_path):
    """Return a folder and an LMDB with the same images, b and a."""
    for name, image in (("b", RGB), ("a", RGB[::-1])):
        write_image(tmp_path / "pictures" / f"{name}.png", image)
    prepare_set(tmp_path / "pictures", tmp_path / "set", "set", scales=(2,), subimage=None)
    return tmp_path / "pictures", tmp_path / "set/set_HR.lmdb"


def test_folder_and_lmdb_are_alike(both):
    folder, database = map(CleanImages, both)
    assert folder.names == database.names == ["a", "b"]
    assert len(folder) == 2
    for name in "ab":
        np.testing.assert_array_equal(folder.read(name), database.read(name))
    np.testing.assert_array_equal(folder.read("b"), RGB)


def _read(images):
    return images.read("b").sum()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_lmdb_is_shared_in_a_process_and_opened_anew_in_others(both, method):
    first, second = CleanImages(both[1]), CleanImages(both[1])
    total = _read(first)
    assert _read(second) == _read(pickle.loads(pickle.dumps(first))) == total
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_read, [first, second, first]) == [total] * 3


def test_what_is_not_there_is_named(tmp_path, both):
    with pytest.raises(FileNotFoundError, match=r"none: not found"):
        CleanImages(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"none\.lmdb: not found"):
        CleanImages(tmp_path / "none.lmdb")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    with pytest.raises(FileNotFoundError, match="empty: contains no image"):
        CleanImages(tmp_path / "empty")
    with pytest.raises(BadImageError, match="c: no such record, expected an image"):
        CleanImages(both[1]).read("c")
    with pytest.raises(BadImageError, match="a has 24x20 pixels, expected at least 21x21 for a patch"):
        CleanImages(both[1]).read_patchable("a", 21)


def test_names_must_differ_in_more_than_their_suffix(tmp_path):
    for suffix in ("png", "jpg"):
        write_image(tmp_path / f"a.{suffix}", RGB)
    with pytest.raises(ValueError, match=r"(a\.jpg and a\.png|a\.png and a\.jpg) have the same name"):
        CleanImages(tmp_path)


def encoded(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


PICTURE = Image.fromarray(RGB)
# Every kind of file that is an image: what it is read as.
GOOD = {
    "16-bit.png": (None, RGB.astype(np.uint16) * 257),
    "gray.png": (encoded(PICTURE.convert("L"), "PNG"), None),
    "rgba.png": (encoded(PICTURE.convert("RGBA"), "PNG"), RGB),
    "palette.png": (encoded(PICTURE.quantize(16), "PNG"), np.array(PICTURE.quantize(16).convert("RGB"))),
    "cmyk.jpg": (encoded(PICTURE.convert("CMYK"), "JPEG"), None),
    "one_wide.png": (encoded(PICTURE.crop((0, 0, 1, 24)), "PNG"), RGB[:, :1]),
    "misnamed.jpg": (encoded(PICTURE, "PNG"), RGB),
    "bild-äöü-画像.png": (encoded(PICTURE, "PNG"), RGB),
}


@pytest.mark.parametrize("file", GOOD)
def test_kinds_of_files(file, tmp_path):
    content, expected = GOOD[file]
    if content is None:
        write_image(tmp_path / file, expected)
    else:
        (tmp_path / file).write_bytes(content)
    images = CleanImages(tmp_path)
    image = images.read(images.names[0])
    assert image.shape[2] == 3
    assert image.dtype == (np.uint16 if file.startswith("16") else np.uint8)
    if expected is not None:
        np.testing.assert_array_equal(image, expected)
    if file == "gray.png":
        assert (image == image[..., :1]).all()
    for name in TASKS:
        if file == "one_wide.png" and name == "super_resolution":
            with pytest.raises(ValueError, match="24x1 image is too small for x2"):
                make_task(name).reference(image)
            continue
        task = make_task(name)
        assert task.degrade_image(task.reference(image), images.names[0]).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (encoded(PICTURE, "PNG")[:300], "not a readable image"),
        (b"text", "unknown image format"),
    ],
    ids=["zero-byte", "truncated", "text"],
)
def test_bad_files_are_named(content, reason, tmp_path):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(BadImageError, match=rf"bad\.png.*{reason}"):
        CleanImages(tmp_path).read("bad")


def test_fresh_generators_differ_and_follow_pytorchs_seed():
    torch.manual_seed(1)
    first = [fresh_rng().integers(2**60) for _ in range(3)]
    assert len(set(first)) == 3
    torch.manual_seed(1)
    assert [fresh_rng().integers(2**60) for _ in range(3)] == first
