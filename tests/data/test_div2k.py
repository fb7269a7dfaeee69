"""From archives, a server or folders to what the configs read."""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import runpy
import shutil
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from file_server import serve, zipped
from killing import stop_at_random_moments

import panet_plugin.data.sources as sources
from panet_plugin.data import BadImageError, read_image, write_image
from panet_plugin.data.command import run_command
from panet_plugin.data.datasets import DIV2K
from panet_plugin.data.div2k import prepare_div2k
from panet_plugin.data.download import DownloadError
from panet_plugin.data.images import encode_image
from panet_plugin.data.sources import ImageFolders, find_subset
from panet_plugin.data.verify import verify_root
from panet_plugin.degradations import imresize

REPOSITORY = Path(__file__).parents[2]
NAMES = {"train": ("0001", "0002", "0003"), "valid": ("0801", "0802")}
SIZES = ((156, 168), (144, 204), (192, 156), (300, 264), (84, 96))
IMAGES = {
    name: np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8)
    for number, name in enumerate(NAMES["train"] + NAMES["valid"])
}


def files_of(archive, subset, scale):
    """Members of a small archive of DIV2K."""
    if scale == 1:
        return {f"{archive.folder}/{name}.png": encode_image(IMAGES[name]) for name in NAMES[subset]}
    return {
        f"{archive.folder}/{name}x{scale}.png": encode_image(imresize(IMAGES[name], 1 / scale))
        for name in NAMES[subset]
    }


@pytest.fixture(scope="session")
def small():
    """A small DIV2K: its table, and its archives by name."""
    table, archives = {}, {}
    for subset, whole in DIV2K.items():
        known = {}
        for scale, archive in whole.archives.items():
            content = zipped(files_of(archive, subset, scale))
            archives[archive.name] = content
            known[scale] = dataclasses.replace(
                archive, size=len(content), sha256=hashlib.sha256(content).hexdigest(), count=len(NAMES[subset])
            )
        table[subset] = dataclasses.replace(whole, archives=known)
    return table, archives


@pytest.fixture
def downloads(small, tmp_path, monkeypatch):
    """Folder of the small archives, which stand for DIV2K's."""
    table, archives = small
    for subset in table:
        monkeypatch.setitem(DIV2K, subset, table[subset])
    for name, content in archives.items():
        (tmp_path / "downloads").mkdir(exist_ok=True)
        (tmp_path / "downloads" / name).write_bytes(content)
    return tmp_path / "downloads"


def read_lmdb(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): hashlib.sha256(value).hexdigest() for key, value in transaction.cursor()}


LMDBS = [
    *("DIV2K_train_HR_sub.lmdb", "DIV2K_train_LR_bicubic_X2_sub.lmdb"),
    *("DIV2K_train_LR_bicubic_X3_sub.lmdb", "DIV2K_train_LR_bicubic_X4_sub.lmdb"),
    *("DIV2K_valid_HR.lmdb", "DIV2K_valid_LR_bicubic_X2.lmdb"),
    *("DIV2K_valid_LR_bicubic_X3.lmdb", "DIV2K_valid_LR_bicubic_X4.lmdb"),
]


def test_download(small, downloads, tmp_path, tree):
    _, archives = small
    with serve({f"/{name}": content for name, content in archives.items()}) as server:
        prepare_div2k(tmp_path / "root", mirror=f"{server.url}/")
        assert sorted(path for path, _ in server.requests) == sorted(f"/{name}" for name in archives)
        prepare_div2k(tmp_path / "root", mirror=server.url)
        assert len(server.requests) == len(archives)
    root = tmp_path / "root"
    assert sorted(path.name for path in root.glob("*.lmdb")) == sorted(LMDBS)
    assert sorted(path.name for path in (root / "archives").glob("[!.]*")) == sorted(archives)
    for name in NAMES["valid"]:
        np.testing.assert_array_equal(read_image(root / f"DIV2K_valid_HR/{name}.png"), IMAGES[name])
        assert (root / f"DIV2K_valid_LR_bicubic/X4/{name}x4.png").is_file()
    outputs = json.loads((root / "DIV2K_train.json").read_text())["outputs"]
    assert {path: output["count"] for path, output in outputs.items()} == dict.fromkeys(LMDBS[:4], 3)

    prepare_div2k(tmp_path / "again", from_archives=downloads)
    for name in (*LMDBS, "DIV2K_train_HR", "DIV2K_train.json", "DIV2K_valid.json"):
        ours, theirs = root / name, tmp_path / "again" / name
        assert tree(ours) == tree(theirs) if ours.is_dir() else ours.read_text() == theirs.read_text()


def test_only_what_is_asked_for(small, downloads, tmp_path):
    _, archives = small
    with serve({f"/{name}": content for name, content in archives.items()}) as server:
        prepare_div2k(tmp_path, ["train"], [2], mirror=server.url)
        assert [path for path, _ in server.requests] == ["/DIV2K_train_HR.zip", "/DIV2K_train_LR_bicubic_X2.zip"]
        prepare_div2k(tmp_path / "clean", ["valid"], [], mirror=server.url)
        assert [path for path, _ in server.requests[2:]] == ["/DIV2K_valid_HR.zip"]
    assert [path.name for path in (tmp_path / "clean").glob("*.lmdb")] == ["DIV2K_valid_HR.lmdb"]


@pytest.mark.parametrize("moved_by", ["DIV2K_ROOT", "data_root"])
@pytest.mark.parametrize("framework", ["mmagic", "basicsr"])
def test_configs_find_what_was_made(downloads, tmp_path, monkeypatch, framework, moved_by):
    """Where one variable says, or one ``--cfg-options data_root=ROOT``."""
    prepare_div2k(tmp_path, scales=[3], from_archives=downloads)
    monkeypatch.setenv("DIV2K_ROOT", str(tmp_path if moved_by == "DIV2K_ROOT" else tmp_path / "none"))
    options = {"task.scale": 3, **({"data_root": str(tmp_path)} if moved_by == "data_root" else {})}
    if framework == "mmagic":
        from mmengine.registry import DATASETS, init_default_scope

        from panet_plugin.frameworks.mmagic.run import _load

        init_default_scope("mmagic")
        config = _load(REPOSITORY / "configs/panet_x2_div2k.py", None, options)
        datasets = [DATASETS.build(config[f"{subset}_dataloader"].dataset) for subset in ("train", "val")]
        assert config.test_dataloader.dataset == config.val_dataloader.dataset
        inputs = "inputs"
    else:
        from panet_plugin.frameworks.basicsr.run import load_options

        options = load_options(REPOSITORY / "configs/basicsr/panet_x2_div2k.yml", options)
        from basicsr.data import build_dataset

        datasets = [
            build_dataset({**options["datasets"][phase], "phase": phase, "scale": 3}) for phase in ("train", "val")
        ]
        inputs = "lq"
    shapes = [[tuple(dataset[index][inputs].shape) for index in range(len(dataset))] for dataset in datasets]
    assert shapes == [[(3, 48, 48)] * 3, [(3, 80, 80), (3, 28, 32)]]


def test_archive_that_is_another_one(downloads, tmp_path):
    (downloads / "DIV2K_train_LR_bicubic_X2.zip").write_bytes(zipped({"a.png": b"x"}))
    with pytest.raises(DownloadError, match=r"DIV2K_train_LR_bicubic_X2\.zip has the SHA-256"):
        prepare_div2k(tmp_path / "root", from_archives=downloads)
    assert not [*(tmp_path / "root").glob("*.lmdb")]


def test_missing_archives_are_listed_before_anything_is_done(downloads, tmp_path):
    for name in ("DIV2K_train_LR_bicubic_X3.zip", "DIV2K_valid_HR.zip"):
        (downloads / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks DIV2K_train_LR_bicubic_X3\.zip, DIV2K_valid_HR\.zip"):
        prepare_div2k(tmp_path / "root", from_archives=downloads)
    assert not (tmp_path / "root").exists()


def test_unpacked_set_that_lacks_an_image(downloads, tmp_path):
    prepare_div2k(tmp_path / "root", ["valid"], [2], from_archives=downloads)
    (tmp_path / "root/DIV2K_valid_HR/0802.png").unlink()
    with pytest.raises(DownloadError, match="DIV2K_valid_HR contains 1 images, expected 2: move it away"):
        prepare_div2k(tmp_path / "root", ["valid"], [2], from_archives=downloads)
    shutil.rmtree(tmp_path / "root/DIV2K_valid_HR")
    prepare_div2k(tmp_path / "root", ["valid"], [2], from_archives=downloads)
    assert (tmp_path / "root/DIV2K_valid_HR/0802.png").is_file()


def test_lr_of_the_wrong_size(downloads, tmp_path):
    prepare_div2k(tmp_path / "root", ["valid"], [2], from_archives=downloads)
    write_image(tmp_path / "root/DIV2K_valid_LR_bicubic/X2/0802x2.png", np.zeros((42, 47, 3), np.uint8))
    with pytest.raises(BadImageError, match=r"0802x2\.png: 42x47 pixels, expected 42x48 for x2 of 0802\.png"):
        prepare_div2k(tmp_path / "root", ["valid"], [2], from_archives=downloads)


# Folders


def put(folder, names, scale=1):
    for name in names:
        image = IMAGES[name] if scale == 1 else np.full_like(imresize(IMAGES[name], 1 / scale), scale)
        write_image(folder / (f"{name}.png" if scale == 1 else f"{name}x{scale}.png"), image)


def div2k_unpacked(folder):
    for subset in NAMES:
        put(folder / f"DIV2K_{subset}_HR", NAMES[subset])
        put(folder / f"DIV2K_{subset}_LR_bicubic/X2", NAMES[subset], 2)


def unpacked_each_to_a_folder(folder):
    for subset in NAMES:
        put(folder / f"DIV2K_{subset}_HR/DIV2K_{subset}_HR", NAMES[subset])
        put(folder / f"DIV2K_{subset}_LR_bicubic_X2/DIV2K_{subset}_LR_bicubic/X2", NAMES[subset], 2)


def one_folder_below(folder):
    div2k_unpacked(folder / "datasets")


def edsr(folder):
    """All 900 in one folder."""
    everything = NAMES["train"] + NAMES["valid"]
    put(folder / "DIV2K_train_HR", everything)
    put(folder / "DIV2K_train_LR_bicubic/X2", everything, 2)


def generic(folder):
    for subset in NAMES:
        put(folder / subset / "HR", NAMES[subset])
        put(folder / subset / "LR_bicubic/X2", NAMES[subset], 2)


@pytest.mark.parametrize("layout", [div2k_unpacked, unpacked_each_to_a_folder, one_folder_below, edsr, generic])
def test_layouts(tmp_path, monkeypatch, layout):
    """Whatever the layout, the same LMDBs; and no validation image is trained on."""
    monkeypatch.setattr(sources, "DIV2K_NAMES", {subset: frozenset(names) for subset, names in NAMES.items()})
    layout(tmp_path / "given")
    prepare_div2k(tmp_path / "root", scales=[2, 3], from_folders=[tmp_path / "given"])
    train, valid = (read_lmdb(tmp_path / "root" / name) for name in (LMDBS[0], LMDBS[4]))
    assert train.keys() == {"0001_s001", "0002_s001", "0003_s001"}
    assert valid.keys() == {"0801", "0802"}
    recipe = json.loads((tmp_path / "root/DIV2K_valid.json").read_text())["recipe"]
    assert recipe["given"] == [2]
    assert (tmp_path / "root/DIV2K_valid_LR_bicubic_X3.lmdb").is_dir()


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("Flickr2K_HR", "Flickr2K_LR_bicubic/X2"),
        ("DF2K_train_HR", "DF2K_train_LR_bicubic_X2/X2"),
        ("HR", "LRx2"),
        ("GT", None),
        (".", None),
        ("train", None),
    ],
)
def test_other_training_sets(tmp_path, hr, lr):
    put(tmp_path / hr, NAMES["train"])
    if lr:
        put(tmp_path / lr, NAMES["train"], 2)
    expected = {1: tmp_path / hr} | ({2: tmp_path / lr} if lr else {})
    assert find_subset([tmp_path], "train", [2]) == [ImageFolders(expected)]
    with pytest.raises(FileNotFoundError, match="no images of the subset valid"):
        find_subset([tmp_path], "valid", [2])


def test_hr_folder_itself_finds_its_lr(tmp_path):
    div2k_unpacked(tmp_path)
    expected = {1: tmp_path / "DIV2K_train_HR", 2: tmp_path / "DIV2K_train_LR_bicubic/X2"}
    assert find_subset([tmp_path / "DIV2K_train_HR"], "train", [2, 4]) == [ImageFolders(expected)]


def test_two_sets_in_a_folder_are_not_guessed(tmp_path):
    put(tmp_path / "DIV2K_train_HR", NAMES["train"])
    put(tmp_path / "Flickr2K_train_HR", NAMES["train"])
    with pytest.raises(ValueError, match=r"DIV2K_train_HR and .*Flickr2K_train_HR: pass the one to use"):
        find_subset([tmp_path], "train", [2])


def df2k_in_parts(folder):
    """As the archives of both unpack."""
    put(folder / "DIV2K_train_HR", NAMES["train"][:1])
    put(folder / "DIV2K_train_LR_bicubic/X2", NAMES["train"][:1], 2)
    put(folder / "Flickr2K/Flickr2K_HR", NAMES["train"][1:])
    put(folder / "Flickr2K/Flickr2K_LR_bicubic/X2", NAMES["train"][1:], 2)


@pytest.mark.parametrize("given", [["DF2K"], ["DF2K/Flickr2K", "DF2K/DIV2K_train_HR"]], ids=["df2k", "two folders"])
def test_several_folders_are_one_set(tmp_path, given):
    df2k_in_parts(tmp_path / "DF2K")
    prepare_div2k(tmp_path / "root", ["train"], [2], from_folders=[tmp_path / folder for folder in given])
    assert read_lmdb(tmp_path / "root" / LMDBS[1]).keys() == {"0001_s001", "0002_s001", "0003_s001"}
    content = json.loads((tmp_path / "root/DIV2K_train.json").read_text())
    assert content["recipe"]["sources"]["0003"][1][0] == "0003x2.png"
    assert verify_root(tmp_path / "root") == []


def test_two_sets_below_each_other_are_not_guessed(tmp_path):
    df2k_in_parts(tmp_path / "datasets")
    with pytest.raises(ValueError, match=r"DIV2K_train_HR and .*Flickr2K/Flickr2K_HR: pass the one to use, or all"):
        prepare_div2k(tmp_path / "root", ["train"], [2], from_folders=[tmp_path / "datasets"])


def test_one_name_in_two_folders(tmp_path):
    for folder in ("one", "two"):
        put(tmp_path / folder, NAMES["train"])
    with pytest.raises(BadImageError, match=r"two/0001\.png has the same name as .*one/0001\.png"):
        prepare_div2k(tmp_path / "root", ["train"], [2], from_folders=[tmp_path / "one", tmp_path / "two"])


def test_folder_without_images_among_several(tmp_path):
    """Nothing to validate on is needed in more than one, images to train on in each."""
    div2k_unpacked(tmp_path / "one")
    (tmp_path / "two").mkdir()
    folders = [tmp_path / "one", tmp_path / "two"]
    assert find_subset(folders, "valid", []) == [ImageFolders({1: tmp_path / "one/DIV2K_valid_HR"})]
    with pytest.raises(FileNotFoundError, match="two contains no images of the subset train"):
        find_subset(folders, "train", [])


def test_images_to_validate_on_are_never_trained_on(tmp_path, monkeypatch):
    """Of a DF2K in one folder that holds the 900 images of EDSR's DIV2K too."""
    names = {"train": frozenset(NAMES["train"][:2]), "valid": frozenset(NAMES["valid"])}
    monkeypatch.setattr(sources, "DIV2K_NAMES", names)
    put(tmp_path / "DF2K_HR", NAMES["train"] + NAMES["valid"])
    (part,) = find_subset([tmp_path], "train", [])
    assert part.names == set(NAMES["train"])


def test_set_without_validation_images_says_so_before_anything_is_done(tmp_path):
    put(tmp_path / "given", NAMES["train"])
    with pytest.raises(FileNotFoundError, match="subset valid"):
        prepare_div2k(tmp_path / "root", from_folders=[tmp_path / "given"])
    assert not (tmp_path / "root").exists()


def test_other_archives_are_searched(tmp_path):
    members = {f"Flickr2K/Flickr2K_HR/{name}.png": encode_image(IMAGES[name]) for name in NAMES["train"]}
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/Flickr2K.zip").write_bytes(zipped(members))
    prepare_div2k(tmp_path / "root", ["train"], [2], from_archives=tmp_path / "downloads")
    assert len(read_lmdb(tmp_path / "root/DIV2K_train_LR_bicubic_X2_sub.lmdb")) == 3


# The script, and being killed


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["div2k.py", *map(str, arguments)])
    runpy.run_path(str(REPOSITORY / "data_prep/div2k.py"), run_name="__main__")


def test_script(downloads, tmp_path, monkeypatch, capfd):
    arguments = ("--out", tmp_path / "root", "--from-archives", downloads, "--scale", 2)
    run_script(monkeypatch, *arguments, "--subset", "valid")
    assert "unpacking: 100%" in capfd.readouterr().err
    assert not (tmp_path / "root/DIV2K_train.json").exists()
    run_script(monkeypatch, *arguments)
    (downloads / "DIV2K_train_LR_bicubic_X3.zip").unlink()
    with pytest.raises(SystemExit, match=r"div2k: .*lacks DIV2K_train_LR_bicubic_X3\.zip"):
        run_script(monkeypatch, *arguments, 3)


@pytest.mark.parametrize(
    ("error", "message"),
    [(OSError(errno.ENOSPC, "No space left on device", "a"), "The disk is full"), (ValueError("wrong"), "x: wrong")],
)
def test_errors_of_scripts(error, message):
    def fail():
        raise error

    with pytest.raises(SystemExit, match=message):
        run_command("x", fail)


def test_interrupted_script(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run_command("x", interrupted)
    assert stop.value.code == 130
    assert "run the same command again to continue" in capsys.readouterr().err


def prepare(table, root, url):
    logging.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    DIV2K.update(table)
    prepare_div2k(root, scales=[2], mirror=url)


def test_killed_at_random_moments_and_two_at_once(context, small, tmp_path, tree):
    """From the first byte of the download to the last move; the result is that of an undisturbed run."""
    table, archives = small
    with serve({f"/{name}": content for name, content in archives.items()}, delay=0.003) as server:
        # The first process waits until the server of processes has imported all.
        process = context.Process(target=prepare, args=(table, tmp_path / "first", server.url))
        process.start()
        process.join()
        process = context.Process(target=prepare, args=(table, tmp_path / "whole", server.url))
        process.start()
        process.join()
        assert process.exitcode == 0

        def start():
            process = context.Process(target=prepare, args=(table, tmp_path / "root", server.url))
            process.start()
            return process

        stop_at_random_moments(start, 8, undo=lambda: shutil.rmtree(tmp_path / "root"))
        processes = [context.Process(target=prepare, args=(table, tmp_path / "root", server.url)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
    assert tree(tmp_path / "root") == tree(tmp_path / "whole")
