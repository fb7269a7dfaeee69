"""Shares of several processes, and their reports."""

import json
import os
import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panet_plugin import command_line
from panet_plugin.ranks import Group, Rank, RankError, join_group, shares


@given(st.lists(st.integers(0, 10**9), max_size=60), st.integers(1, 9))
def test_shares_are_a_balanced_partition(sizes, world):
    dealt = shares(sizes, world)
    assert dealt == shares(tuple(sizes), world)
    assert len(dealt) == world
    assert sorted(index for indices in dealt for index in indices) == list(range(len(sizes)))
    assert all(indices == sorted(indices) for indices in dealt)
    sums = [sum(sizes[index] for index in indices) for indices in dealt]
    for low, indices in zip(sums, dealt, strict=True):
        # Whoever has most has it by one thing, which nobody else could take without having more.
        assert max(sums) - low <= max(sizes, default=0)
        if sum(sizes) == 0:
            assert len(indices) in (len(sizes) // world, -(-len(sizes) // world))
    smallest = max(sum(sizes) / world, max(sizes, default=0))
    assert max(sums) <= smallest * 2


def test_one_share_is_everything():
    assert shares([3, 1, 2], 1) == [[0, 1, 2]]
    assert shares([5, 4, 3, 3], 2) == [[0, 3], [1, 2]]
    assert shares([1], 3) == [[0], [], []]


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, Rank(0, 1, 0)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, Rank(3, 4, 1)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}, Rank(3, 4, 1)),
        (
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"},
            Rank(3, 4, 1),
        ),
        # The script of sbatch --ntasks=4, before any srun.
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, Rank(0, 1, 0)),
        # torchrun in each of two tasks of srun.
        (
            {
                **{"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"},
                **{"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
            },
            Rank(3, 4, 1),
        ),
    ],
)
def test_the_environment_says_which_process_this_is(environment, rank):
    assert Rank.of(environment) == rank


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "many", "SLURM_LOCALID": "0"},
    ],
)
def test_what_the_environment_does_not_say_is_an_error(environment):
    with pytest.raises(RankError, match=f"got {next(iter(environment))}={next(iter(environment.values()))}, "):
        Rank.of(environment)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch, "empty", lambda size, device: asked.append(device))
    assert command_line.device("cuda") == "cuda"
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "5"}.items():
        monkeypatch.setenv(name, value)
    assert [command_line.device(name) for name in ("cuda", "cuda:3", "cpu")] == ["cuda:1", "cuda:3", "cpu"]
    assert asked == ["cuda", "cuda:1", "cuda:3", "cpu"]


def test_the_first_gathers_the_reports_of_all(tmp_path):
    groups = [Group(Rank(number, 4, number), tmp_path / "reports") for number in range(3)]
    assert groups[1].gather(["one"]) is None
    # The third goes on without a sign of life for too long, the fourth has not begun.
    assert groups[0].gather(["zero"], silence=0) == [["zero"], ["one"], None, None]
    groups[0].close(failed=False, asked=False)
    assert not list(tmp_path.iterdir())
    assert groups[2].gather("late") is None
    assert not list(tmp_path.iterdir())


def test_who_lives_is_waited_for(tmp_path, monkeypatch):
    """A sign of life whenever the first process looks again, and then the report."""
    group, other = (Group(Rank(number, 2, number), tmp_path) for number in range(2))
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) < 5:
            os.utime(tmp_path / "1.json", (0, len(looks)))
        else:
            other.gather("done")

    monkeypatch.setattr("time.sleep", sleep)
    assert group.gather("first", silence=0) == ["first", "done"]
    assert len(looks) == 5


def test_who_fails_says_so(tmp_path, monkeypatch):
    for number in (1, 0):
        for name, value in {"RANK": number, "WORLD_SIZE": 2, "LOCAL_RANK": number, "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))
        with pytest.raises(ZeroDivisionError), join_group(tmp_path / "out"):
            (folder,) = tmp_path.iterdir()
            assert folder.name.startswith(".out.")
            raise ZeroDivisionError
        if number:
            assert json.loads((folder / "1.json").read_bytes()) is None
    assert not list(tmp_path.iterdir())


def test_whom_the_launcher_ends_leaves_nothing_behind(tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, join_group(tmp_path / "out"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


def test_one_process_needs_no_files(tmp_path):
    with join_group(tmp_path / "out") as group:
        assert group.gather("alone") == ["alone"]
        assert not list(tmp_path.iterdir())
