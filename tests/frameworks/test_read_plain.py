"""Configs as plain values: what MMEngine reads is read alike, and the rest is refused."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from panet_plugin.frameworks.configs import ConfigError, NotPlain, assignments, parse_yaml, read_plain

CONFIGS = [path for suffix in ("py", "yml") for path in sorted(Path("configs").rglob(f"*.{suffix}"))]
YAML = """
# as BasicSR's users write
numbers: [1e-4, 1e4, 1.e-4, !!float 1e-4, !!float 2, 0.0002, 1_000, 0x1F, 010, .inf, -3, !!int "7"]
words: [~, null, yes, no, on, off, True, FALSE, None, 12:30:45, 2001-12-14, "1", '2', !!str 3]
zebra: {b: 1, a: 2, c: &shared {x: 1}}
apple: {<<: *shared, y: [*shared, *shared]}
tuples: !!python/tuple [1, [2, !!python/tuple [3]]]
text: |
  two
  lines
set: !!set {a, b}
binary: !!binary aGVsbG8=
1: {2: three}
"""


def test_values_are_those_of_the_full_loader():
    # Not CLoader, which BasicSR changes as soon as it has read an option file.
    full, ours = yaml.unsafe_load(YAML), parse_yaml(YAML)
    assert repr(ours) == repr(full)  # with types and order


def as_mmengine(path):
    return repr(Config.fromfile(path, import_custom_modules=False).to_dict())


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.parent.name != "ablation"], ids=str)
def test_our_configs(path):
    assert repr(read_plain(path)) == as_mmengine(path)


@pytest.mark.parametrize("suffix", ["py", "yml"])
def test_few_lines_that_stand_for_billions_of_values(tmp_path, suffix):
    line = "l{0}: &l{0} [{1}]" if suffix == "yml" else "l{0} = [{1}]"
    name = "*l{}" if suffix == "yml" else "l{}"
    lines = [line.format(n, ", ".join([name.format(n - 1) if n else "1"] * 9)) for n in range(9)]
    (tmp_path / f"x.{suffix}").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=rf"x\.{suffix}: more than 100000 values, or values nested more than 50 deep"):
        read_plain(tmp_path / f"x.{suffix}")


@pytest.mark.parametrize("suffix", ["py", "yml"])
def test_what_mmengine_understands(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("HOME_OF_DATA", "/data")
    yml = """
_base_: [first.yml, more/second.yml]
name: "{{ fileBasenameNoExtension }} {{fileExtname}} {{ fileBasename }} {{fileDirname}}"
root: {{$HOME_OF_DATA:no}}
other: "{{$NO_SUCH_VARIABLE:some/where}}"
network: {b: 3, inner: {_delete_: true, z: 1}}
numbers: {1: one}
""".replace("/data", "data")
    py = """
'''A comment.'''
_base_ = ["first.py", "more/second.py"]
name = "{{ fileBasenameNoExtension }} {{fileExtname}} {{ fileBasename }} {{fileDirname}}"
root = "{{$HOME_OF_DATA:no}}"
size = half = -3
network = dict(b=(size, {"x": half}), inner=dict(_delete_=True, z=[size]))
"""
    files = {
        "x.yml": yml,
        "first.yml": "network: {a: 1, inner: {y: 2}}\nnumbers: {2: two}",
        "more/second.yml": "_base_: third.yml\nlist: [1, 2]",
        "more/third.yml": "list: [3]\nlast: 1",
        "x.py": py,
        "first.py": "network = dict(a=1, inner=dict(y=2))",
        "more/second.py": "_base_ = 'third.py'\nlist = [1, 2]",
        "more/third.py": "list = [3]\nlast = 1",
    }
    (tmp_path / "more").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / f"x.{suffix}"
    assert repr(read_plain(path)) == as_mmengine(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"x\.yml: line 1: "),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: !!int one", "not YAML of plain values"),
        ("a: 2024-99-99", "not YAML of plain values"),
        ("a: !mine 3", "line 1: tag '!mine' is not allowed: expected plain values"),
        ("a: {{_base_.b}}", "line 1: "),
        ("- a", "expected names and values, found list"),
        ("", "expected names and values, found NoneType"),
        ("a: {{$NO_SUCH_VARIABLE:}}", "the environment variable NO_SUCH_VARIABLE is not set"),
        ("_base_: none.yml", "_base_: expected an existing .yml file, found 'none.yml'"),
        ("_base_: mmagic::x.yml", "_base_: expected an existing .yml file"),
        ("_base_: 3", "_base_: expected an existing .yml file, found 3"),
        ("_base_: [base.yml, base.yml]", "two _base_ files have a"),
        ("_base_: base.yml\na: {b: 1}", "cannot be merged into its _base_"),
        ("a: " + "[" * 100_000, r"x\.yml: "),
    ],
)
def test_errors_name_the_file(tmp_path, text, message):
    (tmp_path / "base.yml").write_text("a: 1")
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_plain(tmp_path / "x.yml")
    assert str(error.value).startswith(str(tmp_path / "x.yml: "))
    assert "\n" not in str(error.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.yml"):
        read_plain(tmp_path / "none.yml")
    (tmp_path / "x.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.yml: "):
        read_plain(tmp_path / "x.yml")


def test_what_is_not_plain_hides_what_it_replaces(tmp_path):
    (tmp_path / "base.py").write_text("a = dict(b=1)\nc = g = f'{1}'\nd = 1")
    (tmp_path / "x.py").write_text("_base_ = 'base.py'\nother = a\na = dict(b=int('2'))\nc = dict(e=1)\nf = a\ng = 2")
    found = read_plain(tmp_path / "x.py")
    assert {name for name, value in found.items() if isinstance(value, NotPlain)} == {"a", "other", "c", "f"}
    assert (found["d"], found["g"]) == (1, 2)
    assert "line 3" in found["a"]


@pytest.mark.parametrize(
    "text",
    ["import os", "for x in (): pass", "a += 1", "a, b = 1, 2", "a['b'] = 1", "a.b = 1", "print()", "a: int = 1"],
)
def test_other_statements_are_refused(text):
    with pytest.raises(ConfigError, match="line 2: expected plain values, found"):
        assignments(f"a = {{}}\n{text}")
