"""Trainings on sets in shards: the samples of one LMDB, in an order that reads in sequence and is resumed exactly."""

import itertools
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_runs
import torch

from panet_plugin.data import CleanImages, Shard, prepare_set
from panet_plugin.frameworks.basicsr.loading import SampleStream
from panet_plugin.frameworks.configs import ConfigError
from panet_plugin.frameworks.launch import framework_of
from panet_plugin.weights import read_state_dict

SEQUENTIAL = {
    "mmagic": {"train_dataloader.sampler.type": "SequentialSampler", "train_dataloader.sampler.buffer": 2},
    "basicsr": {"datasets.train.shuffle_buffer": 2},
}


@pytest.fixture(scope="module")
def in_shards(div2k, tmp_path_factory):
    """The tiny set with its training part in two shards."""
    root = tmp_path_factory.mktemp("shards")
    for path in div2k.glob("DIV2K_valid*.lmdb"):
        shutil.copytree(path, root / path.name)
    for number in (1, 2):
        settings = {"scales": (2,), "subimage": (192, 96), "shard": Shard(number, 2)}
        prepare_set(div2k / "source/train", root, "DIV2K_train", **settings)
    return root


def train(framework, root, work_dir, iterations, resume=False, **changes):
    """Train in this process and return the weights."""
    options = {**small_runs.changes(framework, iterations), "data_root": str(root), **SEQUENTIAL[framework], **changes}
    if framework == "mmagic":
        options |= {"val_cfg": None, "val_dataloader": None, "val_evaluator": None, "train_cfg.val_interval": 100}
        options |= {
            "default_hooks.checkpoint.interval": 3,
            "default_hooks.checkpoint.save_best": None,
            "experiment_name": os.urandom(4).hex(),
        }
        last = work_dir / f"iter_{iterations}.pth"
    else:
        options |= {"logger.use_tb_logger": False, "val.val_freq": 100, "logger.save_checkpoint_freq": 3}
        last = work_dir / "experiments/panet_x2_div2k/models/net_g_latest.pth"
    config = Path(small_runs.config(framework))
    framework_of(config).train(config, work_dir=work_dir, resume=resume, options=options)
    return read_state_dict(last)


@pytest.fixture(params=["PairedLMDBDataset", "CleanImageDataset"])
def datasets(request, div2k, in_shards):
    """Return for either framework a dataset of the one LMDB and one of the shards, and what draws a sample's pixels."""
    import panet_plugin.frameworks.basicsr
    import panet_plugin.frameworks.mmagic  # noqa: F401 - registers the datasets

    # isort: split
    from basicsr.data import build_dataset
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope("mmagic")
    gt, lq, built = "DIV2K_train_HR_sub.lmdb", "DIV2K_train_LR_bicubic_X2_sub.lmdb", {"mmagic": [], "basicsr": []}
    task, paired = {"name": "denoising"}, request.param.startswith("Paired")
    for root in (div2k, in_shards):
        about = {"img": lq, "scale": 2} if paired else {"task": task}
        about |= {"data_root": str(root), "gt": gt, "patch_size": 12}
        built["mmagic"].append(DATASETS.build({"type": request.param, **about}))
        options = {"name": "x", "phase": "train", "gt_size": 24, "use_hflip": True, "use_rot": True, "scale": 2}
        options |= {"dataroot_gt": str(root / gt), "dataroot_lq": str(root / lq), "task": task}
        built["basicsr"].append(build_dataset({"type": request.param, **options}))
    return built


@pytest.mark.parametrize("framework", SEQUENTIAL)
def test_a_sample_is_that_of_one_lmdb(framework, datasets):
    one, shards = datasets[framework]
    assert len(one) == len(shards) == 4
    for index in range(4):
        samples = []
        for dataset in (one, shards):
            for seed in (random.seed, np.random.seed, torch.manual_seed):
                seed(index)
            samples.append(dataset[index])
        for key in ("gt", "img") if framework == "mmagic" else ("gt", "lq"):
            if key in samples[0]:
                np.testing.assert_array_equal(samples[1][key], samples[0][key])


@pytest.mark.parametrize("framework", SEQUENTIAL)
def test_a_training_on_shards_is_resumed_exactly(framework, in_shards, tmp_path):
    whole = train(framework, in_shards, tmp_path, 5)
    assert all(value.isfinite().all() for value in whole.values())
    # What is left is from the middle of the second pass over the four images.
    for path in [*tmp_path.rglob("*.pth"), *tmp_path.rglob("*.state")]:
        if path.stem in ("iter_5", "net_g_5", "net_g_latest", "5"):
            path.unlink()
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_3.pth"))
    resumed = train(framework, in_shards, tmp_path, 5, resume=True)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_processes_share_a_pass_that_reads_in_sequence(in_shards):
    import panet_plugin.frameworks.mmagic  # noqa: F401 - registers the sampler

    # isort: split
    from mmengine.registry import DATA_SAMPLERS

    images = CleanImages(in_shards / "DIV2K_train_HR_sub.lmdb")
    dataset = type("Dataset", (list,), {"images": images})(images.names)
    sampler = {"type": "SequentialSampler", "dataset": dataset, "buffer": 1, "seed": 0}
    for framework in SEQUENTIAL:
        parts = []
        for rank in range(2):
            if framework == "mmagic":
                stream = DATA_SAMPLERS.build(sampler)
                stream.rank, stream.world_size = rank, 2
            else:
                stream = SampleStream(4, 0, 2, rank, buffer=1, shards=images.shards)
            parts.append([int(index) for index in itertools.islice(stream, 2)])
        assert sorted(itertools.chain(*parts)) == [0, 1, 2, 3]
        # Each process reads one shard.
        assert [len({images.shards[index] for index in part}) for part in parts] == [1, 1]
    with pytest.raises(ValueError, match="expected a whole PairedLMDBDataset or CleanImageDataset, got list of 1"):
        DATA_SAMPLERS.build({**sampler, "dataset": [0]})


def test_a_buffer_needs_a_dataset_of_ours(in_shards, tmp_path):
    changes = {"datasets.train.type": "PairedImageDataset", "datasets.train.io_backend": {"type": "disk"}}
    with pytest.raises(ConfigError, match="shuffle_buffer: expected the type PairedLMDBDataset or CleanImageDataset"):
        train("basicsr", in_shards, tmp_path, 1, **changes)
