import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_sets import PICTURES, make_set
from torch import nn

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.data import read_image, write_image
from panet_plugin.degradations import imresize
from panet_plugin.evaluation import (
    EvaluationError,
    FolderMethod,
    FunctionMethod,
    ImageSet,
    NetworkMethod,
    bicubic,
    cache,
    compare,
    degraded,
)
from panet_plugin.inference import Restorer
from panet_plugin.tasks import make_task

DN, CAR, SR = make_task("denoising", sigma=30), make_task("artifact_reduction"), make_task("super_resolution", scale=2)
ATTENTION = {"levels": 2}


@pytest.fixture
def images(tmp_path):
    return ImageSet.open(make_set(tmp_path / "Tiny"))


class Counted(FunctionMethod):
    """Blurs a little, and counts."""

    def __init__(self, identity="1", name="counted"):
        super().__init__(name, self._blur, identity)
        self.calls = 0
        self._lock = threading.Lock()

    def _blur(self, image):
        with self._lock:
            self.calls += 1
        return (image // 2 + np.roll(image, 1, axis=0) // 2).astype(np.uint8)


@pytest.mark.parametrize("task", [DN, CAR, SR, make_task("demosaicing"), make_task("denoising", gray=True)])
def test_scores_are_those_of_the_protocol(images, task):
    method = bicubic(task) if task.scale > 1 else degraded(task)
    scores = compare(task, [images], [method])
    assert [(score.dataset, score.image, score.method) for score in scores] == [
        ("Tiny", name, method.name) for name in PICTURES
    ]
    for score, (name, picture) in zip(scores, PICTURES.items(), strict=True):
        reference = task.reference(picture)
        restored = task.degrade_image(reference, name)
        restored = restored if task.scale == 1 else imresize(restored, task.scale)
        assert score.psnr == task.protocol.psnr(restored, reference, task.scale)
        assert score.ssim == task.protocol.ssim(restored, reference, task.scale)
        assert score.lpips is None


def test_the_seed_changes_the_noise(images):
    first, again, other = (compare(DN, [images], [degraded(DN)], seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_networks(images):
    torch.manual_seed(0)
    color, gray = (PANet(c, mid_channels=4, num_blocks=2, attention=ATTENTION) for c in (3, 1))
    upscaler = PAEDSR(2, mid_channels=8, num_blocks=1, attention=ATTENTION)
    for task, network in ((DN, color), (CAR, gray), (SR, upscaler)):
        score = compare(task, [images], [NetworkMethod("net", lambda network=network: network, "1")])[0]
        reference = task.reference(PICTURES["chelsea"])
        low = task.degrade_image(reference, "chelsea")
        restored = Restorer(network).restore(low.squeeze())
        assert score.psnr == pytest.approx(task.protocol.psnr(restored, reference.squeeze(), task.scale), abs=1e-6)


def network(module):
    return NetworkMethod("net", lambda: module, "1")


@pytest.mark.parametrize(
    ("task", "module", "message"),
    [
        (DN, PANet(1, mid_channels=4, num_blocks=1, attention=ATTENTION), "net: the network does not restore the RGB"),
        (
            CAR,
            PANet(3, mid_channels=4, num_blocks=1, attention=ATTENTION),
            "net: the network does not restore the gray",
        ),
        (CAR, nn.Conv2d(1, 3, 1), "the network returns 3 channels for an image of 1"),
        (
            SR,
            nn.Identity(),
            r"net: the result for .*\.png is uint8 of shape \(1\d, 1\d, 3\), expected .*\(3\d, [23]\d, 3\)",
        ),
    ],
    ids=["gray network", "RGB network", "more channels", "no upscaling"],
)
def test_networks_of_another_kind(images, task, module, message):
    with pytest.raises(EvaluationError, match=message):
        compare(task, [images], [network(module)])


def test_running_out_of_memory_is_not_taken_for_a_wrong_network(images):
    class Hungry(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        compare(DN, [images], [network(Hungry())])


def test_results_are_cached_by_content(images, tmp_path):
    folder, method = tmp_path / "cache", Counted()
    scores = compare(DN, [images], [method], cache=folder)
    assert method.calls == 2
    assert compare(DN, [images], [method], cache=folder) == scores
    assert method.calls == 2
    # A method of another name that computes the same.
    again = Counted(name="again")
    assert [score.psnr for score in compare(DN, [images], [again], cache=folder)] == [score.psnr for score in scores]
    assert again.calls == 0
    # What changes a score.
    changed = Counted("2")
    compare(DN, [images], [changed], cache=folder)
    compare(DN, [images], [changed], cache=folder, seed=1)
    compare(make_task("denoising", sigma=31), [images], [changed], cache=folder)
    assert changed.calls == 6
    write_image(images.files["coffee"], PICTURES["coffee"] // 2)
    compare(DN, [images], [changed], cache=folder)
    assert changed.calls == 7


def test_another_version_of_the_code_uses_no_old_scores(images, tmp_path, monkeypatch):
    method = Counted()
    compare(DN, [images], [method], cache=tmp_path / "cache")
    monkeypatch.setattr("panet_plugin.evaluation.cache.algorithm", lambda: "another")
    compare(DN, [images], [method], cache=tmp_path / "cache")
    assert method.calls == 4


@pytest.mark.parametrize("name", ["a.py", "kernel.cpp", "kernel.h"])
def test_the_code_is_part_of_the_key(name, tmp_path, monkeypatch):
    (tmp_path / name).write_text("1")
    monkeypatch.setattr(cache.panet_plugin, "__file__", str(tmp_path / "__init__.py"))
    before = cache.algorithm.__wrapped__()
    (tmp_path / name).write_text("2")
    assert cache.algorithm.__wrapped__() != before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"psnr": 1.0}', '{"psnr": "30", "ssim": 1.0}', "\udcff"])
def test_a_corrupt_cache_is_ignored_and_repaired(images, tmp_path, content):
    folder, method = tmp_path / "cache", Counted()
    scores = compare(DN, [images], [method], cache=folder)
    for path in folder.iterdir():
        path.write_bytes(content.encode(errors="surrogateescape"))
    assert compare(DN, [images], [method], cache=folder) == scores
    assert method.calls == 4
    assert compare(DN, [images], [method], cache=folder) == scores
    assert method.calls == 4


def test_what_was_scored_before_a_failure_is_kept(images, tmp_path):
    class Interrupted(Counted):
        def restore(self, sample):
            if sample.name == "coffee" and self.fails:
                raise KeyboardInterrupt
            return super().restore(sample)

    method, folder = Interrupted(), tmp_path / "cache"
    method.fails = True
    with pytest.raises(KeyboardInterrupt):
        compare(DN, [images], [method], cache=folder, workers=1)
    assert method.calls == len(list(folder.iterdir())) == 1
    method.fails = False
    compare(DN, [images], [method], cache=folder)
    assert method.calls == 2


def test_equal_images_have_an_infinite_score_in_the_cache_too(images, tmp_path):
    method = FunctionMethod("clean", lambda image: image, "1")
    flat = make_task("denoising", sigma=0)
    for _ in range(2):
        assert {score.psnr for score in compare(flat, [images], [method], cache=tmp_path / "cache")} == {float("inf")}


def test_saved_images_are_made_anew(images, tmp_path):
    method = Counted()
    for calls in (2, 4):
        compare(CAR, [images], [method], cache=tmp_path / "cache", images=tmp_path / "out")
        assert method.calls == calls
    saved = read_image(tmp_path / "out/counted/Tiny/coffee.png")[..., :1]
    low = CAR.degrade_image(CAR.reference(PICTURES["coffee"]), "coffee")
    np.testing.assert_array_equal(saved, (low // 2 + np.roll(low, 1, axis=0) // 2).astype(np.uint8))


def test_a_folder_of_results_scores_as_the_method_that_made_them(images, tmp_path):
    other = ImageSet("Other", images.files)
    scores = compare(SR, [images, other], [bicubic(SR)], images=tmp_path / "out")
    results = FolderMethod("results", tmp_path / "out/bicubic")
    again = compare(SR, [images, other], [results], cache=tmp_path / "cache")
    assert [(score.dataset, score.psnr, score.ssim) for score in again] == [
        (score.dataset, score.psnr, score.ssim) for score in scores
    ]
    # One set alone needs no folder of its name; what changed is scored again.
    write_image(tmp_path / "out/bicubic/Tiny/coffee.png", SR.reference(PICTURES["coffee"]))
    single = FolderMethod("results", tmp_path / "out/bicubic/Tiny")
    changed = compare(SR, [images], [single], cache=tmp_path / "cache")
    assert changed[0].psnr == scores[0].psnr
    assert changed[1].psnr == float("inf")


def results(tmp_path, change):
    folder = tmp_path / "results"
    for name, picture in PICTURES.items():
        write_image(folder / f"{name}.png", SR.reference(picture))
    change(folder)
    return FolderMethod("theirs", folder)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (lambda folder: (folder / "coffee.png").unlink(), ["no result for", "coffee.png"]),
        (
            lambda folder: (folder / "coffee.png").rename(folder / "coffeex2.png"),
            ["no result for", "coffee.png", "no image for", "coffeex2.png"],
        ),
        (
            lambda folder: write_image(folder / "coffee.png", PICTURES["coffee"]),
            ["coffee.png is 31x33, expected 30x32 as"],
        ),
    ],
    ids=["missing", "renamed", "not cropped"],
)
def test_results_that_do_not_match(images, tmp_path, change, messages):
    first = Counted()
    with pytest.raises(EvaluationError, match="theirs") as caught:
        compare(SR, [images], [first, results(tmp_path, change)])
    for message in messages:
        assert message in str(caught.value)
    assert first.calls == 0, "found out only after work was done"


def test_results_of_several_sets_need_their_folders(images, tmp_path):
    other = ImageSet("Other", images.files)
    with pytest.raises(EvaluationError, match=r"expected the results of Tiny in .*results/Tiny"):
        compare(SR, [images, other], [results(tmp_path, lambda folder: None)])


def test_lists_of_files_are_cut_short(tmp_path):
    images = ImageSet("Many", {str(i): Path(f"{i}.png") for i in range(100)})
    with pytest.raises(EvaluationError, match=r"and 80 more") as caught:
        FolderMethod("theirs", tmp_path).check([images], DN)
    assert len(str(caught.value).splitlines()) == 22


def test_images_too_small_for_the_protocol_are_named(tmp_path):
    write_image(tmp_path / "line.png", PICTURES["coffee"][:, :1])
    with pytest.raises(EvaluationError, match=r"line\.png: SSIM requires at least 11 pixels per side"):
        compare(DN, [ImageSet.open(tmp_path)], [degraded(DN)])


@pytest.mark.parametrize("name", ["", "a/b", "..", "a|b", "a b"])
def test_names_that_are_no_folder_or_cell(name):
    with pytest.raises(EvaluationError, match="letters, digits"):
        Counted(name=name)


def test_names_must_differ(images):
    with pytest.raises(EvaluationError, match="methods with distinct names, got counted, counted"):
        compare(DN, [images], [Counted(), Counted()])
    with pytest.raises(EvaluationError, match="sets with distinct names, got Tiny, Tiny"):
        compare(DN, [images, images], [Counted()])
    with pytest.raises(EvaluationError, match="got none"):
        compare(DN, [images], [])


def test_methods_of_one_kind_of_task():
    with pytest.raises(EvaluationError, match="compare with bicubic"):
        degraded(SR)
    with pytest.raises(EvaluationError, match="use degraded"):
        bicubic(DN)


def test_lpips_is_scored_and_cached(images, tmp_path):
    def lpips(restored, reference):
        assert restored.shape == reference.shape
        return 0.25

    method = Counted()
    for given, score, calls in ((None, None, 2), (lpips, 0.25, 4), (lpips, 0.25, 4), (None, None, 4)):
        scores = compare(CAR, [images], [method], cache=tmp_path / "cache", lpips=given)
        assert [found.lpips for found in scores] == [score] * 2
        assert method.calls == calls
