"""Former command lines."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from panet_plugin.former_options import add_renamed_option, parse_required


def test_a_former_name_of_an_option_still_works(capsys):
    parser = ArgumentParser()
    parser.add_argument("--data", type=int, default=1)
    parser.add_argument("--scale", type=int, nargs="*", default=[2])
    add_renamed_option(parser, "--root", "--data")
    add_renamed_option(parser, "--scales", "--scale")
    assert [parser.parse_args(line).data for line in ([], ["--data", "2"])] == [1, 2]
    assert capsys.readouterr().err == ""
    assert parser.parse_args(["--root", "3"]).data == 3
    assert capsys.readouterr().err == "warning: --root is now --data\n"
    assert [parser.parse_args(line).scale for line in ([], ["--scales"], ["--scales", "3", "4"])] == [[2], [], [3, 4]]
    assert "--root" not in parser.format_help()


def parse(monkeypatch, *words):
    parser = ArgumentParser()
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=int)
    monkeypatch.setattr("sys.argv", ["tool", *words])
    args = parse_required(parser, "--weights", "--out")
    assert "former" not in parser.format_help()
    return args.weights, args.out


def test_former_positional_arguments_still_work(monkeypatch, capsys):
    assert parse(monkeypatch, "--weights", "a", "--out", "2") == (Path("a"), 2)
    assert capsys.readouterr().err == ""
    assert parse(monkeypatch, "a", "2") == (Path("a"), 2)
    assert capsys.readouterr().err == "warning: a: expected --weights a\nwarning: 2: expected --out 2\n"
    for words, message in (
        (["a"], "the following arguments are required: --out"),
        (["a", "2", "b"], "unrecognized arguments: b"),
        (["a", "b"], "invalid int value: 'b'"),
    ):
        with pytest.raises(SystemExit):
            parse(monkeypatch, *words)
        assert message in capsys.readouterr().err
