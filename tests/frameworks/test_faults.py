"""Trainings that are stopped, starved and poisoned: what was reached is kept, and what happened is said."""

import argparse
import errno
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import small_runs
import torch
from preloaded import preloaded

from panet_plugin.archs import PAEDSR
from panet_plugin.command_line import report_errors
from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.frameworks.mmagic import hooks
from panet_plugin.frameworks.trainings import Interruption, TrainingError, alone_in
from panet_plugin.weights import CheckpointError, read_state_dict

WHOLE: list = []


@pytest.fixture
def train(div2k, monkeypatch, tmp_path):
    """Return a function that trains in this process, into ``tmp_path / name``."""
    config = Path(small_runs.config("mmagic"))

    def run(name="run", resume=False, validate=False, **changes):
        options = {**small_runs.changes("mmagic"), "default_hooks.checkpoint.save_best": None}
        if not validate:
            options |= {"val_cfg": None, "val_dataloader": None, "val_evaluator": None, "train_cfg.val_interval": 100}
        options |= {"experiment_name": f"{name}-{os.urandom(4).hex()}"}
        # A process opens an LMDB once only, and the one of a training that has failed is still open.
        data = shutil.copytree(div2k, tmp_path / options["experiment_name"])
        monkeypatch.setenv("DIV2K_ROOT", str(data))
        options |= {key.replace("__", "."): value for key, value in changes.items()}
        framework_of(config).train(config, work_dir=tmp_path / name, resume=resume, options=options)
        return tmp_path / name

    return run


@pytest.fixture
def whole(train, tmp_path_factory):
    """Return the last checkpoint of the training that nothing disturbs."""
    if not WHOLE:
        WHOLE.append(shutil.copy(train("whole") / "iter_4.pth", tmp_path_factory.mktemp("whole")))
    return WHOLE[0]


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("*.pth"))


def equal(*files):
    first, other = map(read_state_dict, files)
    return first.keys() == other.keys() and all(torch.equal(first[name], other[name]) for name in first)


def at_iteration(monkeypatch, number, act):
    """Act before an iteration of the next trainings, which are counted from 1."""

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 == number:
            act()

    monkeypatch.setattr(hooks.SaveWhenAsked, "before_train_iter", before_train_iter)


# Checkpoints


def full_disk(monkeypatch, after):
    """Let the disk be full once so many files have been written."""
    written, fsync = [], os.fsync

    def limited(file):
        written.append(file)
        if len(written) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr("panet_plugin.files.os.fsync", limited)


def test_the_only_checkpoint_stays_until_the_next_is_whole(train, whole, monkeypatch):
    with monkeypatch.context() as patch:
        full_disk(patch, after=2)  # the first checkpoint and the name of it
        with pytest.raises(OSError, match=r"cannot write its \d+ bytes: No space left on device: .*iter_4\.pth"):
            train(default_hooks__checkpoint__max_keep_ckpts=1)
    folder = train(resume=True, default_hooks__checkpoint__max_keep_ckpts=1)
    assert checkpoints(folder) == ["iter_4.pth"]
    assert not list(folder.glob(".*.tmp"))
    assert equal(folder / "iter_4.pth", whole)


def test_resuming_takes_the_newest_whole_checkpoint(train, whole, caplog):
    folder = train()
    (folder / "iter_4.pth").write_bytes((folder / "iter_4.pth").read_bytes()[:5000])
    (folder / "last_checkpoint").write_text(str(folder / "iter_6.pth"))
    with caplog.at_level(logging.WARNING):
        train(resume=True)
    assert "iter_4.pth is incomplete" in caplog.text
    assert equal(folder / "iter_4.pth", whole)


def test_without_a_checkpoint_training_starts_from_scratch(train, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last_checkpoint").write_text("gone.pth")
    with caplog.at_level(logging.WARNING):
        assert checkpoints(train(resume=True)) == ["iter_2.pth", "iter_4.pth"]
    assert "no checkpoint to resume from; training starts from scratch" in caplog.text


class Program:
    """Makes a folder when it is unpickled by a loader that obeys."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Return a function that puts checkpoints that must not be read in the place of one, and trains each time."""
    load = torch.load
    # The default of PyTorch before 2.6.
    monkeypatch.setattr(torch, "load", lambda file, **options: load(file, **{"weights_only": False, **options}))

    def check(path, train, kinds=("program", "object", "cut")):
        path.parent.mkdir(parents=True, exist_ok=True)
        for kind in kinds:
            harm = {"program": Program(tmp_path / "harmed"), "object": argparse.Namespace(a=1)}.get(kind)
            torch.save({"params": {}, "state_dict": {}, "harm": harm}, path)
            if kind == "cut":
                path.write_bytes(path.read_bytes()[:300])
            with pytest.raises(SystemExit) as left, report_errors():
                train()
            # A text as its code is all that is printed.
            assert re.match(f"error: {path}: (refused|not a checkpoint file)", left.value.code), left.value.code
            assert "weights_only" not in left.value.code
        assert not (tmp_path / "harmed").exists()

    return check


def test_checkpoints_that_are_no_data_are_refused(train, refused, tmp_path):
    refused(tmp_path / "weights.pth", lambda: train(load_from=str(tmp_path / "weights.pth")))
    # One that is cut is passed over.
    refused(tmp_path / "run/iter_2.pth", lambda: train(resume=True), kinds=("program", "object"))


def test_basicsr_refuses_checkpoints_that_are_no_data(train_basicsr, refused, tmp_path):
    weights, state = tmp_path / "weights.pth", tmp_path / "2.state"
    refused(weights, lambda: train_basicsr(path__pretrain_network_g=str(weights)))
    refused(state, lambda: train_basicsr(path__resume_state=str(state)))
    experiment = tmp_path / "experiments/panet_x2_div2k"
    (experiment / "models").mkdir(parents=True)
    torch.save({}, experiment / "models/net_g_2.pth")
    refused(experiment / "training_states/2.state", lambda: train_basicsr(resume=True), kinds=("program", "object"))


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_leaves(train, whole, monkeypatch, number):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_iteration(patch, 3, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as left:
            train()
    assert left.value.code == 128 + number
    assert signal.getsignal(number) is before
    folder = train(resume=True)
    assert checkpoints(folder) == ["iter_2.pth", "iter_3.pth", "iter_4.pth"]
    assert equal(folder / "iter_4.pth", whole)


def test_a_second_signal_leaves_at_once(train, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_iteration(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        train()


def test_the_second_sigterm_is_the_systems():
    with Interruption().noted() as interruption:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def answer(pipe):
    while number := pipe.recv():
        pipe.send(number)


def sigterm_waits(pid):
    (waiting,) = re.findall(r"(?m)^ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return int(waiting, 16) >> (signal.SIGTERM - 1) & 1


def test_processes_that_load_data_outlive_a_signal_to_all():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with Interruption().noted():
        process = context.Process(target=answer, args=(theirs,))
        process.start()
        for number in (1, 2):
            ours.send(number)
            assert ours.recv() == number
            subprocess.run(["kill", "-TERM", str(process.pid)], check=True)
            # Of two equal signals that wait, the second is lost.
            while sigterm_waits(process.pid):
                time.sleep(0.001)
        process.terminate()  # as PyTorch does
        process.join()
    assert process.exitcode == 0


def test_a_signal_leaves_a_validation(train, monkeypatch, tmp_path):
    """With averaged weights, which are in the place of the others then."""
    seen, leave = [], hooks.SaveWhenAsked.after_val_iter

    def signaled(self, *args, **kwargs):
        seen.append(self)
        os.kill(os.getpid(), signal.SIGTERM)
        leave(self, *args, **kwargs)

    averaged = [{"type": "EMAHook", "momentum": 0.5}]
    options = {"validate": True, "train_cfg__val_interval": 3, "custom_hooks": averaged}
    train("undisturbed", **options)
    with monkeypatch.context() as patch:
        patch.setattr(hooks.SaveWhenAsked, "after_val_iter", signaled)
        with pytest.raises(SystemExit) as left:
            train(**options)
    assert left.value.code == 128 + signal.SIGTERM
    assert len(seen) == 1  # of two images
    folder = train(resume=True, **options)
    assert checkpoints(folder) == ["iter_2.pth", "iter_3.pth", "iter_4.pth"]
    for name in ("state_dict", "ema_state_dict"):
        first, other = (torch.load(tmp_path / run / "iter_4.pth")[name] for run in ("undisturbed", "run"))
        assert all(torch.equal(first[key], other[key]) for key in first)


def test_settings_that_stay_the_checkpoints_are_logged(train, caplog):
    with caplog.at_level(logging.INFO):
        train()
        assert "resumed at" not in caplog.text
        changed = {"optim_wrapper__optimizer__lr": 3e-4, "param_scheduler__milestones": [9]}
        folder = train(resume=True, train_cfg__max_iters=5, **changed)
    assert any("resumed at iteration 4: " in log.read_text() for log in folder.glob("*/*.log"))
    assert (
        "resumed at iteration 4: optimizer (learning rate) and schedule are from the checkpoint; length" in caplog.text
    )
    for setting in (
        "optimizer initial_lr=0.0003 (checkpoint: 0.0001)",
        "schedule milestones=[9] (",
        "schedule end=5 (",
    ):
        assert setting in caplog.text
    cosine = {"_delete_": True, "type": "CosineAnnealingLR", "by_epoch": False}
    with pytest.raises(TrainingError, match=r"learning rate schedule is .*milestones.*, expected .*T_max"):
        train(resume=True, param_scheduler=cosine)
    torch.save({"state_dict": {}}, train("other") / "iter_4.pth")
    with pytest.raises(CheckpointError, match=r"iter_4\.pth: cannot resume training without message_hub, meta"):
        train("other", resume=True)


# NaN


def poisoned_in_validation(forward):
    return lambda self, x: forward(self, x) * (1 if self.training else float("nan"))


def test_steps_that_are_not_finite_are_skipped(train, monkeypatch, caplog):
    forward, calls = PAEDSR.forward, []

    def poisoned(self, x):
        calls.append(x)
        return forward(self, x) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(PAEDSR, "forward", poisoned)
    with caplog.at_level(logging.WARNING):
        folder = train(default_hooks__checkpoint__interval=1)
    assert "iteration 2: nonfinite loss or gradient; step skipped; images: " in caplog.text
    assert "unknown names" not in caplog.text
    first, second, third = (read_state_dict(folder / f"iter_{number}.pth") for number in (1, 2, 3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(second[name], third[name]) for name in first)
    assert all(value.isfinite().all() for value in third.values())


def test_a_training_that_stays_not_finite_ends(train, monkeypatch, tmp_path):
    monkeypatch.setattr(PAEDSR, "forward", lambda self, x: self.tail(self.upsample(self.head(x))) * float("inf"))
    with pytest.raises(TrainingError, match=r"3 consecutive steps were nonfinite, the last at iteration 3 with images"):
        train(max_nonfinite_steps=3)
    assert read_state_dict(tmp_path / "run/iter_2.pth")["head.weight"].isfinite().all()


def test_weights_that_are_not_finite_replace_no_checkpoint(train, monkeypatch, tmp_path):
    def poison(self, runner, *args, **kwargs):
        if runner.iter + 1 == 3:
            runner.model.generator.tail.weight.data[0] = float("nan")

    monkeypatch.setattr(hooks.SayPatch, "before_train_iter", poison, raising=False)
    with pytest.raises(TrainingError, match=r"iter_4\.pth is not written: the network's weights are nonfinite"):
        train(max_nonfinite_steps=0)
    assert checkpoints(tmp_path / "run") == ["iter_2.pth"]


# BasicSR


@pytest.fixture
def train_basicsr(div2k, monkeypatch, tmp_path):
    """Return a function that trains in this process and returns the folder of the experiment."""

    def run(resume=False, config=None, **changes):
        config = Path(config or small_runs.config("basicsr"))
        options = {**small_runs.changes("basicsr"), "logger.use_tb_logger": False, "val.val_freq": 100}
        options |= {key.replace("__", "."): value for key, value in changes.items()}
        data = shutil.copytree(div2k, tmp_path / os.urandom(4).hex())
        monkeypatch.setenv("DIV2K_ROOT", str(data))
        framework_of(config).train(config, work_dir=tmp_path, resume=resume, options=options)

    return run


def network(tmp_path, iteration):
    return read_state_dict(tmp_path / f"experiments/panet_x2_div2k/models/net_g_{iteration}.pth")


def before_step(monkeypatch, number, act):
    """Act before a step of BasicSR's next trainings, which are counted from 1."""
    from panet_plugin.frameworks.basicsr.models import RestorationModel

    feed = RestorationModel.feed_data

    def feed_data(self, data):
        feed(self, data)
        if self.optimizer_g.state and max(int(s["step"]) for s in self.optimizer_g.state.values()) + 1 == number:
            act(self)

    monkeypatch.setattr(RestorationModel, "feed_data", feed_data)


def test_basicsr_saves_and_leaves_on_a_signal(train_basicsr, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        before_step(patch, 3, lambda model: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as left:
            train_basicsr()
    assert left.value.code == 128 + signal.SIGTERM
    states = tmp_path / "experiments/panet_x2_div2k/training_states"
    assert sorted(path.name for path in states.iterdir()) == ["2.state", "3.state"]
    train_basicsr(resume=True)
    assert sorted(path.name for path in states.iterdir()) == ["2.state", "3.state", "4.state"]
    assert torch.load(states / "4.state", weights_only=True)["iter"] == 4


def test_basicsr_goes_on_as_if_it_had_not_stopped(train_basicsr, monkeypatch, tmp_path):
    noise = "configs/basicsr/panet_dn50_div2k.yml"
    options = {"config": noise, "datasets__train__num_worker_per_gpu": 2, "train__total_iter": 5}
    weights = tmp_path / "experiments/panet_dn50_div2k/models/net_g_latest.pth"
    train_basicsr(**options)
    whole = shutil.copy(weights, tmp_path / "whole.pth")
    with monkeypatch.context() as patch:
        before_step(patch, 3, lambda model: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train_basicsr(**options)
    # In the middle of a pass over the four images, and with other processes.
    train_basicsr(resume=True, **{**options, "datasets__train__num_worker_per_gpu": 1})
    assert equal(weights, whole)


def test_basicsr_leaves_a_validation_on_a_signal(train_basicsr, monkeypatch, tmp_path):
    from panet_plugin.frameworks.basicsr.models import RestorationModel

    restored, test = [], RestorationModel.test

    def signaled(self):
        test(self)
        restored.append(self)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(RestorationModel, "test", signaled)
        with pytest.raises(SystemExit) as left:
            train_basicsr(val__val_freq=3)
    assert left.value.code == 128 + signal.SIGTERM
    assert len(restored) == 1  # of two images
    states = tmp_path / "experiments/panet_x2_div2k/training_states"
    assert torch.load(states / "3.state", weights_only=True)["iter"] == 3


def test_basicsr_ends_where_an_output_is_not_finite(train_basicsr, monkeypatch):
    from panet_plugin.frameworks.basicsr.models import RestorationModel

    scores = []
    monkeypatch.setattr(PAEDSR, "forward", poisoned_in_validation(PAEDSR.forward))
    monkeypatch.setattr(RestorationModel, "_log_validation_metric_values", lambda self, *_: scores.append(self))
    with pytest.raises(TrainingError, match=r"the output for .*/chelsea is not finite"):
        train_basicsr(val__val_freq=3)
    assert not scores


def test_basicsr_says_which_settings_stay_the_checkpoints(train_basicsr, caplog):
    with caplog.at_level(logging.INFO):
        train_basicsr()
        assert "resumed at" not in caplog.text
        train_basicsr(resume=True, train__total_iter=5, train__optim_g__lr=3e-4, train__scheduler__milestones=[9])
    assert (
        "resumed at iteration 4: optimizer (learning rate) and schedule are from the checkpoint; length" in caplog.text
    )
    assert "optimizer initial_lr=0.0003 (checkpoint: 0.0001); schedule milestones=[9] (checkpo" in caplog.text
    cosine = {"train__scheduler": {"_delete_": True, "type": "CosineAnnealingRestartLR", "eta_min": 0}}
    with pytest.raises(TrainingError, match=r"learning rate schedule is .*milestones.*, expected .*periods"):
        train_basicsr(resume=True, **cosine)


def test_basicsr_refuses_to_outlive_its_schedule(train_basicsr):
    cosine = {"train__scheduler": {"_delete_": True, "type": "CosineAnnealingRestartLR", "eta_min": 0}}
    train_basicsr(**cosine)
    with pytest.raises(TrainingError, match=r"ends at iteration 4, expected 6 as set by train\.total_iter"):
        train_basicsr(resume=True, train__total_iter=6, **cosine)


def test_basicsr_skips_steps_that_are_not_finite(train_basicsr, monkeypatch, tmp_path, caplog):
    def poison(model):
        model.lq = model.lq * float("nan")

    before_step(monkeypatch, 2, poison)
    with pytest.raises(
        TrainingError, match=r"2 consecutive steps were nonfinite, the last at iteration 3 with images "
    ):
        train_basicsr(logger__save_checkpoint_freq=1, train__max_nonfinite_steps=2)
    first, second = network(tmp_path, 1), network(tmp_path, 2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_basicsr_keeps_weights_and_scores_finite(train_basicsr, monkeypatch, tmp_path):
    def poison(model):
        model.net_g.tail.weight.data[0] = float("nan")

    before_step(monkeypatch, 2, poison)
    with pytest.raises(TrainingError, match=r"net_g_2\.pth is not written: the network's weights are nonfinite"):
        train_basicsr(train__max_nonfinite_steps=0)
    assert not list((tmp_path / "experiments/panet_x2_div2k/models").iterdir())


def test_basicsr_refuses_a_second_training_of_a_name(train_basicsr, tmp_path):
    with alone_in(tmp_path / "experiments/panet_x2_div2k"), pytest.raises(TrainingError, match="another training"):
        train_basicsr()


# One training in a work dir


def hold(folder, ready, done):
    with alone_in(folder):
        ready.set()
        done.wait()


def test_a_second_training_in_a_work_dir_is_refused(train, tmp_path):
    ready, done = preloaded().Event(), preloaded().Event()
    process = preloaded().Process(target=hold, args=(tmp_path / "run", ready, done))
    process.start()
    ready.wait()
    with pytest.raises(TrainingError, match=rf"in use by another training run \(process {process.pid}\)"):
        train()
    process.kill()
    process.join()
    with alone_in(tmp_path / "run"):
        pass
