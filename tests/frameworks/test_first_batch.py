"""The look at the first batch: what is certain ends a training, what is not is a warning, and good data is neither."""

import importlib
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import small_runs
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from torch.utils.data import Dataset

from panet_plugin.data import read_image, write_image
from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.frameworks.first_batch import check_first_batch
from panet_plugin.frameworks.trainings import TrainingError

KEYS = {"range_key": "RANGE", "order_key": "ORDER"}


@pytest.fixture(scope="module")
def picture(div2k):
    return min((div2k / "DIV2K_train_HR_sub").glob("*.png"))


def batch(picture, turn=lambda image: image):
    """Return a patch of an image, flipped and transposed, as a batch."""
    patch = turn(read_image(picture)[8:40, 16:40])[::-1].transpose(1, 0, 2)
    return torch.from_numpy(patch.transpose(2, 0, 1) / np.float32(255))[None]


def exchanged(image):
    return image[..., ::-1]


def check(truth, inputs=None, **options):
    check_first_batch(truth if inputs is None else inputs, truth, **KEYS, **options)


def test_good_data_passes(picture, caplog):
    good = batch(picture)
    check(good, path=str(picture))
    check(good, good + 2 * torch.randn(good.shape).clamp(-3, 3))
    check(None, good)
    check(batch(picture, exchanged))  # nothing to compare it with
    check(batch(picture, exchanged) * 0.99, path=str(picture))  # not the colors of the file
    check(good.mean(1, keepdim=True), path=str(picture))
    assert not caplog.text


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_exchange_is_found_by_the_file(picture, tmp_path, suffix):
    path = tmp_path / f"picture.{suffix}"
    cv2.imwrite(str(path), exchanged(read_image(picture)))
    check(batch(path), path=str(path))
    with pytest.raises(TrainingError, match=rf"^the first batch is BGR by comparison with {path}, .* RGB: see ORDER$"):
        check(batch(path, exchanged), path=str(path))


def test_files_that_cannot_be_compared_are_none_of_its_business(picture, tmp_path):
    wrong = batch(picture, exchanged)
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:500])
    write_image(tmp_path / "deep.png", read_image(picture).astype(np.uint16) * 257)
    for name in ("cut.png", "deep.png", "gone.png"):
        check(wrong, path=str(tmp_path / name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": 255}, r"of ground truth from \d.* to \d+, expected 0 to 1: see RANGE"),
        ({"inputs": 255}, r"of input from \d.* to \d+, expected 0 to 1: see RANGE"),
        ({"truth": -1}, r"of ground truth from -[\d.]+ to .*, expected 0 to 1"),
        ({"bgr": True}, r"BGR, expected RGB: see ORDER"),
    ],
)
def test_what_is_wrong_is_an_error_or_a_warning(picture, change, message, caplog):
    good = batch(picture)
    given = {"truth": good * change.get("truth", 1), "inputs": good * change.get("inputs", 1)}
    with pytest.raises(TrainingError, match=f"the first batch is {message}"):
        check(**given, bgr="bgr" in change)
    assert not caplog.text
    check(**given, bgr="bgr" in change, certain=False)
    assert "this is correct only if the network expects it" in caplog.text


def test_what_was_divided_twice_is_a_warning(picture, caplog):
    check(batch(picture) / 255)
    assert "is black, or was divided by 255 twice: see RANGE" in caplog.text


# In trainings


@pytest.fixture
def train(div2k, monkeypatch, tmp_path):
    """Return a function that trains in this process, from folders of clean images."""
    monkeypatch.setenv("DIV2K_ROOT", str(div2k))

    def run(framework, **changes):
        config = Path(small_runs.config(framework))
        options = {**small_runs.changes(framework, 1), **{key.replace("__", "."): v for key, v in changes.items()}}
        if framework == "mmagic":
            options |= {"val_cfg": None, "val_dataloader": None, "val_evaluator": None, "train_cfg.val_interval": 100}
            options |= {"experiment_name": os.urandom(4).hex(), "default_hooks.checkpoint.save_best": None}
        else:
            options |= {"val.val_freq": 100, "logger.use_tb_logger": False}
        framework_of(config).train(config, work_dir=tmp_path, options=options)

    return run


@TRANSFORMS.register_module()
class Exchange(BaseTransform):
    """Exchanges red and blue, and says the file but not the exchange."""

    def transform(self, results):
        return {**results, "gt": exchanged(results["gt"]), "gt_path": f"{results['gt_path']}.png"}


def folder(*transforms):
    """Return a dataset of clean images whose pipeline has further transforms."""
    pipeline = [{"type": "DegradeByTask"}, *({"type": name} for name in transforms), {"type": "PackInputs"}]
    about = {"data_root": os.environ["DIV2K_ROOT"], "gt": "DIV2K_train_HR_sub", "patch_size": 12, "pipeline": pipeline}
    about |= {"task": {"name": "super_resolution", "scale": 2}}
    return {"_delete_": True, "type": "CleanImageDataset", **about}


def test_mmagic(train, caplog):
    wrong = {"train_dataloader__dataset": folder("Exchange")}
    with pytest.raises(TrainingError, match=r"input from .* see model\.data_preprocessor with mean=\[0\.0\] std=\[1"):
        train("mmagic", model__data_preprocessor__std=[1.0])
    with pytest.raises(TrainingError, match=r"ground truth from .* see model\.data_preprocessor"):
        train("mmagic", model__data_preprocessor__data_keys=None)
    with pytest.raises(TrainingError, match=r"is BGR, .* and model\.data_preprocessor\.output_channel_order"):
        train("mmagic", train_dataloader__dataset=folder(), model__data_preprocessor__output_channel_order="BGR")
    with pytest.raises(TrainingError, match=r"is BGR by comparison with .*\.png, .*: see channel_order in train_data"):
        train("mmagic", **wrong)
    assert "correct only if" not in caplog.text
    network = {"_delete_": True, "type": "EDSRNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4}
    train("mmagic", **wrong, model__generator={**network, "num_blocks": 1, "upscale_factor": 2})
    assert "BGR by comparison" in caplog.text
    caplog.clear()
    train("mmagic", train_dataloader__dataset=folder())
    assert "first batch" not in caplog.text


def test_basicsr(train, div2k, picture):
    importlib.import_module("panet_plugin.frameworks.basicsr")
    registry = importlib.import_module("basicsr.utils.registry").DATASET_REGISTRY

    class Wrong(Dataset):
        def __init__(self, opt):
            self.factor, self.turn = (255, np.array) if "mean" in opt else (1, exchanged)

        def __len__(self):
            return 4

        def __getitem__(self, index):
            image = batch(picture, self.turn)[0]
            return {"gt": image * self.factor, "lq": image[:, ::2, ::2], "gt_path": str(picture), "lq_path": ""}

    registry.register(Wrong)
    with pytest.raises(TrainingError, match=r"ground truth from .*: see datasets\.train with type=Wrong mean=0"):
        train("basicsr", datasets__train__type="Wrong", datasets__train__mean=0)
    with pytest.raises(TrainingError, match=rf"BGR by comparison with {picture}, .*: see datasets\.train with type="):
        train("basicsr", datasets__train__type="Wrong")
