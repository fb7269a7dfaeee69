"""Pairs that both frameworks make from clean images: the same in validation, fresh ones in training."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import panet_plugin.frameworks.basicsr
import panet_plugin.frameworks.mmagic  # noqa: F401 - registers the datasets
from panet_plugin.data import CleanImages
from panet_plugin.tasks import TASKS, make_task

SETTINGS = [(name, {}) for name in TASKS] + [
    ("denoising", {"gray": True}),
    ("artifact_reduction", {"luma_only": False}),
]


def in_mmagic(root, name, parameters, training=False):
    from mmagic.registry import DATASETS
    from mmengine.registry import init_default_scope

    init_default_scope("mmagic")
    pipeline = [
        {"type": "DegradeByTask", "seed": None if training else 0},
        {"type": "PackInputs", "meta_keys": ["task"]},
    ]
    dataset = {"type": "CleanImageDataset", "data_root": "", "gt": str(root), "task": {"name": name, **parameters}}
    return DATASETS.build({**dataset, "pipeline": pipeline, "patch_size": 12 if training else None})


def in_basicsr(root, name, parameters, training=False):
    from basicsr.data import build_dataset

    options = {"dataroot_gt": str(root), "task": {"name": name, **parameters}, "type": "CleanImageDataset", "name": "x"}
    more = {"gt_size": 12 * make_task(name, **parameters).scale, "use_hflip": True, "use_rot": True}
    return build_dataset({**options, **(more if training else {}), "phase": "train" if training else "val"})


def pixels(tensor):
    return np.rint(tensor.double().numpy().transpose(1, 2, 0) * (255 if tensor.dtype == torch.float32 else 1))


@pytest.mark.parametrize(("name", "parameters"), SETTINGS)
@pytest.mark.parametrize("kind", ["folder", "lmdb"])
def test_validation_pairs_are_the_same_everywhere(kind, name, parameters, div2k):
    root = div2k / ("DIV2K_valid_HR" if kind == "folder" else "DIV2K_valid_HR.lmdb")
    task, images = make_task(name, **parameters), CleanImages(root)
    ours, theirs = in_mmagic(root, name, parameters), in_basicsr(root, name, parameters)
    # In reverse order: nothing depends on what came before.
    for index in (1, 0):
        reference = task.reference(images.read(images.names[index]))
        degraded = task.degrade_image(reference, images.names[index])
        sample, pair = ours[index], theirs[index]
        np.testing.assert_array_equal(pixels(sample["inputs"]), degraded)
        np.testing.assert_array_equal(pixels(sample["data_samples"].gt_img), reference)
        np.testing.assert_array_equal(pixels(pair["lq"]), degraded)
        np.testing.assert_array_equal(pixels(pair["gt"]), reference)
        assert sample["data_samples"].task == task


def test_validation_pairs_do_not_depend_on_workers(div2k):
    dataset = in_basicsr(div2k / "DIV2K_valid_HR.lmdb", "denoising", {})
    alone = [pair["lq"] for pair in DataLoader(dataset, num_workers=0)]
    torch.manual_seed(7)
    apart = [pair["lq"] for pair in DataLoader(dataset, num_workers=2)]
    assert all(torch.equal(*pair) for pair in zip(alone, apart, strict=True))


@pytest.mark.parametrize("make", [in_mmagic, in_basicsr])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_draws_fresh_noise_each_time(make, workers, div2k):
    """In every epoch, even where the framework seeds its workers alike at the start of each."""

    def seed_alike(worker):
        np.random.seed(worker)

    def noise(sample):
        degraded, clean = (
            (sample["inputs"][0], sample["data_samples"][0].gt_img)
            if "inputs" in sample
            else (sample["lq"][0], sample["gt"][0])
        )
        return pixels(degraded) - pixels(clean)

    from mmengine.dataset import pseudo_collate

    dataset = make(div2k / "DIV2K_train_HR_sub.lmdb", "denoising", {"sigma": 50}, training=True)
    collate = pseudo_collate if make is in_mmagic else None
    loader = DataLoader(dataset, num_workers=workers, worker_init_fn=seed_alike, collate_fn=collate)
    seen = [noise(sample).tobytes() for _ in range(2) for sample in loader]
    assert len(set(seen)) == len(seen) == 2 * len(dataset)


def test_transforms_stand_beside_mmagics_own(div2k):
    from mmagic.registry import TRANSFORMS
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    init_default_scope("mmagic")
    path = str(div2k / "DIV2K_valid_HR/chelsea.png")
    clean = CleanImages(div2k / "DIV2K_valid_HR").read("chelsea")
    for own, name, parameters in (
        ("DownsampleBicubic", "super_resolution", {"scale": 3}),
        ("AddGaussianNoise", "denoising", {"sigma": 30}),
        ("AddGaussianNoise", "denoising", {"sigma": 30, "gray": True}),
        ("MosaicBayer", "demosaicing", {"pattern": "RGGB"}),
        ("CompressJPEG", "artifact_reduction", {"quality": 20}),
    ):
        task = make_task(name, **parameters)
        for order in ("bgr", "rgb"):
            pipeline = Compose(
                [
                    {"type": "LoadImageFromFile", "key": "gt", "channel_order": order},
                    {"type": own, "seed": 5, **parameters},
                    {"type": "PackInputs"},
                ]
            )
            sample = pipeline({"gt_path": path})
            reference = task.reference(clean)
            np.testing.assert_array_equal(pixels(sample["inputs"]), task.degrade_image(reference, path, seed=5))
            np.testing.assert_array_equal(pixels(sample["data_samples"].gt_img), reference)
    with pytest.raises(ValueError, match="sigma must be a finite number"):
        TRANSFORMS.build({"type": "AddGaussianNoise", "sigma": -1})
    with pytest.raises(KeyError, match="the sample has no task"):
        TRANSFORMS.build({"type": "DegradeByTask"})({"gt": clean})


def test_some_training_images_of_gray_tasks_are_gray_from_0_to_255():
    from mmengine.registry import TRANSFORMS

    black_to_white = np.linspace((0, 0, 0), (255, 255, 255), 48).astype(np.uint8)[None] + np.zeros((4, 1, 1), np.uint8)
    black_to_white[0, 0, 0] = 1  # not three equal channels everywhere
    gray, color = make_task("artifact_reduction"), make_task("artifact_reduction", luma_only=False)
    ranges = set()
    transform = TRANSFORMS.build({"type": "RandomFullRangeGray"})
    for _ in range(40):
        sample = transform({"gt": black_to_white, "task": gray})
        reference = TRANSFORMS.build({"type": "DegradeByTask"})(sample)["gt"]
        ranges.add((int(reference.min()), int(reference.max())))
        assert transform({"gt": black_to_white, "task": color})["gt"] is black_to_white
    assert ranges == {(0, 255), (16, 235)}


def test_metrics_without_a_protocol_need_the_task(div2k):
    from mmagic.registry import METRICS

    metric = METRICS.build({"type": "ProtocolPSNR"})
    sample = {
        "input": torch.zeros(1, 4, 4),
        "gt_img": torch.zeros(1, 4, 4),
        "output": {"pred_img": torch.ones(1, 4, 4)},
    }
    with pytest.raises(KeyError, match="set a protocol, or keep the task"):
        metric.process(None, [sample])


@pytest.mark.parametrize("make", [in_mmagic, in_basicsr])
def test_images_must_hold_a_patch(make, div2k):
    dataset = make(div2k / "DIV2K_valid_HR", "super_resolution", {"scale": 5}, training=True)
    with pytest.raises(ValueError, match="expected at least 60x60 for a patch"):
        [dataset[index] for index in range(2)]
