"""Every tool that reads a config, with configs that try to run something."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from skimage import data

from panet_plugin.archs import PAEDSR
from panet_plugin.data import write_image

ROOT = Path(__file__).parents[2]
ARGUMENTS = {"scale": 2, "mid_channels": 8, "num_blocks": 1, "attention": {"levels": 1}}
GOOD = {"name": "n", "network_g": {"type": "PAEDSR", **ARGUMENTS}, "datasets": {}}

#: What the tools that take anybody's checkpoint are given besides the config.
READERS = {
    "restore.py": ["photo.png", "--weights", "net.pth", "--config"],
    "convert_checkpoint.py": ["--weights", "net.pth", "--out", "ours.pth", "--config"],
    "compare.py": [
        "--task",
        "super_resolution",
        "--scale",
        "2",
        "--data",
        "set",
        "--methods",
        "net=net.pth",
        "--config",
    ],
    "export.py": ["net.pth", "net.safetensors", "--config"],
    "show_attention.py": ["photo.png", "--weights", "net.pth", "--at", "1", "1", "--config"],
}
TRAINERS = {"train.py": [], "test.py": ["net.pth"]}

APPLY = "!!python/object/apply:os.mknod [MARK]"
#: What is wrong with the file that is given, and all files: the first is given.
OPTIONS = {
    "tag": (r"line 2: tag '!!python/object/apply:os.mknod' is not allowed", {"x.yml": f"a: 1\nb: {APPLY}"}),
    "verbatim": ("is not allowed", {"x.yml": "a: !<tag:yaml.org,2002:python/object/apply:os.mknod> [MARK]"}),
    "handle": ("is not allowed", {"x.yaml": f"%TAG !y! tag:yaml.org,2002:python/\n---\na: {APPLY[:1]}y!{APPLY[9:]}"}),
    "new": ("tag '!!python/object/new:os.mknod'", {"x.yml": "a: !!python/object/new:os.mknod [MARK]"}),
    "name": ("tag '!!python/name:os.mknod'", {"x.yml": "a: !!python/name:os.mknod"}),
    "variable": ("is not allowed", {"x.yml": "a: {{$NO_SUCH:!!python/object/apply:os.mknod}} [MARK]"}),
    "base": (r"base.yml: line 1: tag", {"x.yml": "_base_: base.yml", "base.yml": f"a: {APPLY}"}),
    "base of base": (
        r"c.yml: line 1: tag",
        {"x.yml": "_base_: [b.yml]", "b.yml": "_base_: c.yml", "c.yml": f"a: {APPLY}"},
    ),
    "program as base": (
        "x.yml: _base_: expected an existing .yml file, found 'base.py'",
        {"x.yml": "_base_: base.py", "base.py": "__import__('os').mknod('MARK')"},
    ),
    "JSON as base": ("x.yml: _base_: expected", {"x.yml": "_base_: base.json", "base.json": "{}"}),
    "pickle as base": ("x.yml: _base_: expected", {"x.yml": "_base_: base.pkl", "base.pkl": "cos\nmknod\n(VMARK\ntR."}),
    "base of itself": ("x.yml: a _base_ of itself", {"x.yml": "_base_: x.yml"}),
    "network": (
        "no network or layer os.mknod is registered",
        {
            "x.yml": json.dumps(
                {**GOOD, "network_g": {"type": "MMagicArch", "arch": {"type": "os.mknod", "path": "MARK"}}}
            )
        },
    ),
    "JSON": ("x.json: expected an existing config: .py", {"x.json": f'{{"a": {APPLY}}}'}),
    "TOML": ("x.toml: expected an existing config: .py", {"x.toml": f"a = '{APPLY}'"}),
    "pickle": ("x.pkl: expected an existing config: .py", {"x.pkl": "cos\nmknod\n(VMARK\ntR."}),
}
MODEL = f"model = dict(generator={GOOD['network_g']!r})\n"
PROGRAMS = {
    "statement": (
        "x.py: line 2: expected plain values, found __import__",
        {"x.py": MODEL + "__import__('os').mknod('MARK')"},
    ),
    "value": (
        "model does not consist of plain values",
        {"x.py": "model = dict(generator=__import__('os').mknod('MARK'))"},
    ),
    "base": (
        "base.py: line 1: expected plain values",
        {"x.py": "_base_ = ['base.py']\n" + MODEL, "base.py": "import os; os.mknod('MARK')"},
    ),
    "name of a base": (
        "_base_: expected an existing .py file",
        {"x.py": "_base_ = __import__('os').mknod('MARK')\n" + MODEL},
    ),
    "lazy": ("expected plain values, found with", {"x.py": "with __import__('os').mknod('MARK'): pass"}),
    "network": ("os.mknod is registered", {"x.py": "model = dict(generator=dict(type='os.mknod', path='MARK'))"}),
}


@pytest.fixture
def tool(monkeypatch, capsys, tmp_path):
    """Return a function that runs a tool in this process, in a folder with a checkpoint that says nothing."""
    monkeypatch.chdir(tmp_path)
    torch.save({"params": PAEDSR(**ARGUMENTS).state_dict()}, "net.pth")
    write_image(Path("photo.png"), data.coffee()[:16, :16])
    write_image(Path("set/HR/coffee.png"), data.coffee()[:32, :32])

    def run(script, config, *more):
        arguments = [*READERS[script], config] if script in READERS else [config, *TRAINERS[script]]
        if script == "compare.py":
            arguments[-1] = f"net={config}"
        monkeypatch.setattr(sys, "argv", [script, *arguments, *more])
        try:
            runpy.run_path(str(ROOT / "tools" / script), run_name="__main__")
        except SystemExit as stopped:
            return str(stopped.code)
        return capsys.readouterr().out

    return run


def write(files, mark):
    for name, text in files.items():
        Path(name).write_text(text.replace("MARK", str(mark)))
    return next(iter(files))


def assert_refused(output, message, mark):
    assert not mark.exists()
    assert output.startswith("error: ") and "\n" not in output
    assert re.search(message, output), output


@pytest.mark.parametrize(
    ("script", "message", "files"),
    [
        pytest.param(script, *cases[case], id=f"{case}-{script}")
        # A program is what trainers expect of a .py file.
        for scripts, cases in (((*TRAINERS, *READERS), OPTIONS), (READERS, PROGRAMS))
        for case in cases
        for script in scripts
    ],
)
def test_configs_are_not_executed(tool, tmp_path, script, message, files):
    mark = tmp_path / "executed"
    assert_refused(tool(script, write(files, mark)), message, mark)


@pytest.mark.parametrize("script", READERS)
def test_they_import_nothing_that_a_config_names(tool, tmp_path, monkeypatch, script):
    monkeypatch.syspath_prepend(tmp_path)
    mark = tmp_path / "executed"
    config = "custom_imports = dict(imports=['named'])\nhome = __import__('os').getcwd()\n" + MODEL
    output = tool(script, write({"x.py": config, "named.py": "import os; os.mknod('MARK')"}, mark))
    assert not output.startswith("error: ")
    assert not mark.exists()


@pytest.mark.parametrize("config", ["x.yml", "x.py"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name.x=1", r"x\.\w+: cannot apply the override name\.x=1"),
        ("numbers.7=1", "cannot apply the override numbers.7=1"),
        ("a=" + "[" * 400 + "]" * 400, "cannot apply the override a="),
    ],
)
def test_overrides_that_do_not_fit_are_named(tool, tmp_path, config, override, message):
    Path("x.yml").write_text(json.dumps({**GOOD, "numbers": [1]}))
    Path("x.py").write_text("name = 'n'\nnumbers = [1]\n")
    assert_refused(tool("train.py", config, "--cfg-options", override), message, tmp_path / "executed")


@pytest.mark.parametrize("override", ["name", "=1", "a..b=1", "a=(1,", "a=[1,2"])
def test_overrides_that_cannot_be_read_are_named(tool, capsys, override):
    assert tool("train.py", "x.yml", "--cfg-options", override) == "2"
    assert capsys.readouterr().err.endswith(f" {override!r}\n")


@pytest.mark.parametrize("script", TRAINERS)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("network_g.type=os.mknod network_g.path=MARK", "no network or layer os.mknod is registered"),
        (
            "network_g.type=MMagicArch network_g.arch.type=os.mknod network_g.arch.path=MARK",
            "no network or layer os.mknod is registered",
        ),
        ("network_g.type=!!python/object/apply:os.mknod[MARK]", "no network or layer !!python/object.* is registered"),
        ("network_g.type=__import__('os').mknod('MARK')", "no network or layer __import__.* is registered"),
        ("datasets.train.io_backend.sys_path=MARK", "io_backend.sys_path is not allowed"),
    ],
)
def test_overrides_are_not_executed(tool, tmp_path, script, override, message):
    Path("x.yml").write_text(json.dumps(GOOD))
    mark = tmp_path / "executed"
    words = override.replace("MARK", str(mark)).split()
    assert_refused(tool(script, "x.yml", "--cfg-options", *words), message, mark)
