"""Shared options of the command-line tools."""

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass

import pytest
import torch

from panet_plugin.command_line import (
    add_task_options,
    add_training_options,
    add_window_option,
    device,
    positive,
)
from panet_plugin.tasks import TASKS, Denoising


def test_a_device_is_tried_before_it_is_used():
    assert device("cpu") == "cpu"
    assert device("auto") in ("cuda", "mps", "cpu")
    with pytest.raises(ArgumentTypeError, match="foo: no such device here"):
        device("foo")
    if not torch.cuda.is_available():
        with pytest.raises(ArgumentTypeError, match="cuda: no such device here"):
            device("cuda")


def test_tasks_may_have_parameters_of_one_name(monkeypatch, capsys):
    @dataclass(frozen=True)
    class Sharpening(Denoising):
        sigma: float = 3.0

    monkeypatch.setitem(TASKS, "sharpening", Sharpening)
    parser = ArgumentParser()
    add_task_options(parser)
    assert parser.parse_args(["--task", "sharpening", "--sigma", "2.5"]).sigma == 2.5
    parser.print_help()
    assert "sharpening, default: 3.0" in " ".join(capsys.readouterr().out.split())


def test_short_names_of_tasks(capsys):
    parser = ArgumentParser()
    add_task_options(parser)
    names = ("sr", "car", "denoising")
    assert [parser.parse_args(["--task", name]).task for name in names] == [
        *("super_resolution", "artifact_reduction", "denoising"),
    ]
    with pytest.raises(SystemExit):
        parser.parse_args(["--task", "dn"])
    assert "invalid choice: 'dn'" in capsys.readouterr().err


def test_the_window():
    parser = ArgumentParser()
    add_window_option(parser, "")
    options = ([], ["--window", "24"], ["--window", "none"])
    assert [parser.parse_args(option).window for option in options] == ["trained", 24, None]
    with pytest.raises(ArgumentTypeError, match="expected a whole number above 0, got '0'"):
        positive("0")


def test_a_config_that_has_moved_is_found(tmp_path, capsys):
    parser = ArgumentParser()
    add_training_options(parser)
    (tmp_path / "panet").mkdir()
    (tmp_path / "panet/x.py").touch()
    assert parser.parse_args([str(tmp_path / "x.py")]).config == tmp_path / "panet/x.py"
    assert capsys.readouterr().err == f"warning: {tmp_path / 'x.py'} has moved to {tmp_path / 'panet/x.py'}\n"
    for name in ("panet/x.py", "none.py"):
        assert parser.parse_args([str(tmp_path / name)]).config == tmp_path / name
    (tmp_path / "edsr").mkdir()
    (tmp_path / "edsr/x.py").touch()
    assert parser.parse_args([str(tmp_path / "x.py")]).config == tmp_path / "x.py"  # which of them is not known
    assert capsys.readouterr().err == ""
