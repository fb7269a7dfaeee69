"""Trainings that are stopped, starved and poisoned: what was reached is kept, and what happened is said."""

import errno
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import small_runs
import torch
from preloaded import preloaded

from panet_plugin.archs import PAEDSR
from panet_plugin.frameworks.launch import framework_of
from panet_plugin.frameworks.mmagic import hooks
from panet_plugin.frameworks.trainings import Interruption, TrainingError, alone_in
from panet_plugin.weights import read_state_dict

WHOLE: list = []


@pytest.fixture
def train(div2k, monkeypatch, tmp_path):
    """Return a function that trains in this process, into ``tmp_path / name``."""
    config = Path(small_runs.config("mmagic"))

    def run(name="run", resume=False, **changes):
        options = {**small_runs.changes("mmagic"), "val_cfg": None, "val_dataloader": None, "val_evaluator": None}
        options |= {"train_cfg.val_interval": 100, "default_hooks.checkpoint.save_best": None}
        options |= {"experiment_name": f"{name}-{os.urandom(4).hex()}"}
        # A process opens a LMDB once only, and the one of a training that has failed is still open.
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
    assert "iter_4.pth is not whole" in caplog.text
    assert equal(folder / "iter_4.pth", whole)


def test_without_a_checkpoint_training_starts_from_scratch(train, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/last_checkpoint").write_text("gone.pth")
    with caplog.at_level(logging.WARNING):
        assert checkpoints(train(resume=True)) == ["iter_2.pth", "iter_4.pth"]
    assert "no checkpoint to resume from; training starts from scratch" in caplog.text


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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


# NaN


def test_steps_that_are_not_finite_are_skipped(train, monkeypatch, caplog):
    forward, calls = PAEDSR.forward, []

    def poisoned(self, x):
        calls.append(x)
        return forward(self, x) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(PAEDSR, "forward", poisoned)
    with caplog.at_level(logging.WARNING):
        folder = train(default_hooks__checkpoint__interval=1)
    assert "iteration 2: loss or gradient is not finite; step skipped; images: " in caplog.text
    assert "unknown names" not in caplog.text
    first, second, third = (read_state_dict(folder / f"iter_{number}.pth") for number in (1, 2, 3))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(second[name], third[name]) for name in first)
    assert all(value.isfinite().all() for value in third.values())


def test_a_training_that_stays_not_finite_ends(train, monkeypatch, tmp_path):
    monkeypatch.setattr(PAEDSR, "forward", lambda self, x: self.tail(self.upsample(self.head(x))) * float("inf"))
    with pytest.raises(TrainingError, match=r"3 steps in a row were not finite, the last at iteration 3 with images"):
        train(max_nonfinite_steps=3)
    assert read_state_dict(tmp_path / "run/iter_2.pth")["head.weight"].isfinite().all()


def test_weights_that_are_not_finite_replace_no_checkpoint(train, monkeypatch, tmp_path):
    def poison(self, runner, *args, **kwargs):
        if runner.iter + 1 == 3:
            runner.model.generator.tail.weight.data[0] = float("nan")

    monkeypatch.setattr(hooks.SayPatch, "before_train_iter", poison, raising=False)
    with pytest.raises(TrainingError, match=r"iter_4\.pth is not written: the network's weights are not finite"):
        train(max_nonfinite_steps=0)
    assert checkpoints(tmp_path / "run") == ["iter_2.pth"]


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
    with pytest.raises(TrainingError, match=rf"in use by another training \(process {process.pid}\)"):
        train()
    process.kill()
    process.join()
    with alone_in(tmp_path / "run"):
        pass
