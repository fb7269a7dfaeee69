"""Loads and long runs in which nothing may grow: `make test-faults`.

Not named test_*.py, so that only that target runs it: at full size it takes some minutes. ``FAULTS_SHARE=0.1`` in the
environment makes a tenth of it.
"""

import functools
import gc
import importlib
import itertools
import json
import multiprocessing
import os
import re
import runpy
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import small_runs
import torch
from PIL import Image
from preloaded import ROOT, preloaded

from panet_plugin.archs import PANet
from panet_plugin.weights import read_state_dict, write_checkpoint

SHARE = float(os.environ.get("FAULTS_SHARE", "1"))
PICTURES, EPOCHS, RESUMES = (max(10, round(count * SHARE)) for count in (10_000, 500, 20))

#: What a process may take more late than early, in bytes: the allocator's own ups and downs.
SLACK = 16 << 20


class Usage(NamedTuple):
    """What a process holds: bytes of memory, open files, pieces of shared memory that it maps or that lie about."""

    memory: int
    files: int
    shared: int

    @classmethod
    def now(cls):
        gc.collect()
        process = psutil.Process()
        mapped = sum("/dev/shm/" in line for line in Path("/proc/self/maps").read_text().splitlines())
        names = (re.match(r"torch_(\d+)_", path.name) for path in Path("/dev/shm").iterdir())
        left = sum(not Path("/proc", name[1]).exists() for name in names if name)
        return cls(process.memory_info().rss, process.num_fds(), mapped + left)


def sampled(function, count, samples):
    """Return a function that notes what the process holds after a tenth and after nine tenths of ``count`` calls."""
    calls = itertools.count(1)

    @functools.wraps(function)
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        if next(calls) in (count // 10, count * 9 // 10):
            with samples.open("a") as file:
                print(json.dumps(Usage.now()), file=file)
        return result

    return call


def run(target, *arguments, code=0):
    """Run a function in a process of its own."""
    process = preloaded().Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == code


def assert_flat(samples):
    """Compare what a process held late with what it held early."""
    early, late = (Usage(*json.loads(line)) for line in samples.read_text().splitlines())
    print(f"\n{early}, then {late}")
    assert late.memory - early.memory < SLACK
    assert late.files <= early.files
    assert late.shared <= early.shared


# Restoring


def restore(folder, samples):
    import panet_plugin.inference.restoration as restoration

    restoration.encode_stored = sampled(restoration.encode_stored, PICTURES, samples)
    os.chdir(ROOT)
    sys.argv = ["restore.py", str(folder / "in"), "-o", str(folder / "out"), "--weights", str(folder / "net.pth")]
    runpy.run_path("tools/restore.py", run_name="__main__")


def test_images_in_one_call(tmp_path):
    torch.manual_seed(0)
    write_checkpoint(PANet(mid_channels=4, num_blocks=1, attention={"levels": 1}).eval(), tmp_path / "net.pth")
    (tmp_path / "in").mkdir()
    # In the order of their names, sizes and formats take turns.
    picture = Image.open(ROOT / "docs/coffeex2_58_10.png").convert("RGB").resize((24, 24))
    for number in range(PICTURES):
        suffix = ("png", "jpg", "webp", "tif", "bmp")[number % 5]
        picture.crop((0, 0, 12 + number % 3, 12)).save(tmp_path / f"in/{number:05}.{suffix}")
    run(restore, tmp_path, tmp_path / "samples")
    assert len(list((tmp_path / "out").iterdir())) == PICTURES
    assert_flat(tmp_path / "samples")


# Training


def train(framework, data, work_dir, changes, resume=False):
    # The processes that load data are forked as ever, and not as this one was.
    multiprocessing.set_start_method("fork", force=True)
    os.chdir(ROOT)
    os.environ["DIV2K_ROOT"] = str(data)
    from panet_plugin.frameworks.bridges import framework_of

    config = Path(small_runs.config(framework))
    options = small_runs.changes(framework) | changes
    framework_of(config).train(config, work_dir=work_dir, resume=resume, options=options)


#: Epochs of two iterations, each followed by a validation; other processes load the data.
SHORT_EPOCHS = {
    "mmagic": {
        "train_cfg": {"_delete_": True, "type": "EpochBasedTrainLoop", "max_epochs": EPOCHS, "val_interval": 1},
        "train_dataloader.sampler.type": "DefaultSampler",
        "train_dataloader.num_workers": 1,
        "val_dataloader.num_workers": 1,
        "log_processor.by_epoch": True,
        "default_hooks.checkpoint.interval": EPOCHS,
    },
    "basicsr": {
        "datasets.train.num_worker_per_gpu": 1,
        "train.total_iter": 2 * EPOCHS,
        "val.val_freq": 2,
        "logger.save_checkpoint_freq": EPOCHS,
    },
}


def train_short_epochs(framework, data, work_dir, samples):
    importlib.import_module(f"panet_plugin.frameworks.{framework}")
    if framework == "mmagic":
        from panet_plugin.frameworks.mmagic.hooks import SayPatch

        SayPatch.after_val_epoch = sampled(SayPatch.after_val_epoch, EPOCHS, samples)
    else:
        from panet_plugin.frameworks.basicsr.models import RestorationModel

        RestorationModel.validation = sampled(RestorationModel.validation, EPOCHS, samples)
    train(framework, data, work_dir, SHORT_EPOCHS[framework])


@pytest.mark.parametrize("framework", ["mmagic", "basicsr"])
def test_epochs_with_validation(framework, div2k, tmp_path):
    run(train_short_epochs, framework, div2k, tmp_path, tmp_path / "samples")
    assert_flat(tmp_path / "samples")


def train_until(framework, data, work_dir, number, iteration):
    """Resume a training of two iterations for each of its stops, and send it a signal in an iteration."""
    importlib.import_module(f"panet_plugin.frameworks.{framework}")
    if framework == "mmagic":
        from panet_plugin.frameworks.mmagic.hooks import SayPatch as watched

        def step(self, runner, *args, **kwargs):
            if runner.iter + 1 == iteration:
                os.kill(os.getpid(), number)

        watched.before_train_iter = step
    else:
        from panet_plugin.frameworks.basicsr.models import RestorationModel as watched

        optimize = watched.optimize_parameters

        def step(self, current_iter):
            if current_iter == iteration:
                os.kill(os.getpid(), number)
            optimize(self, current_iter)

        watched.optimize_parameters = step
    changes = small_runs.changes(framework, 2 * RESUMES + 2)
    train(framework, data, work_dir, changes, resume=True)


@pytest.mark.parametrize("framework", ["mmagic", "basicsr"])
def test_resumes_in_a_row(framework, div2k, tmp_path):
    last = 2 * RESUMES + 2
    for stop in range(RESUMES):
        # One signal after an iteration whose checkpoint is written anyway, the other before.
        number, iteration = (signal.SIGTERM, 2 * stop + 1) if stop % 2 else (signal.SIGINT, 2 * stop + 2)
        run(train_until, framework, div2k, tmp_path / "stopped", number, iteration, code=128 + number)
    run(train_until, framework, div2k, tmp_path / "stopped", None, None)
    if framework == "mmagic":
        run(train_until, framework, div2k, tmp_path / "whole", None, None)
        stopped, whole = (read_state_dict(tmp_path / name / f"iter_{last}.pth") for name in ("stopped", "whole"))
        assert stopped.keys() == whole.keys()
        assert all(torch.equal(stopped[name], whole[name]) for name in whole)
    else:
        states = tmp_path / "stopped/experiments/panet_x2_div2k/training_states"
        assert torch.load(states / f"{last}.state", weights_only=True)["iter"] == last
