"""The installer, against real virtual environments whose pip is a recorder: nothing is downloaded."""

import ast
import json
import os
import re
import subprocess
import sys
import venv as stdlib_venv
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands for `python -m pip`: notes its arguments and constraints, "installs" what the real one would leave behind that
# the installer looks at, or fails with the text in $FAKE_PIP_ERROR.
FAKE_PIP = """
import json, os, pathlib, re, sys
arguments = sys.argv[1:]
constraints = ""
if "--constraint" in arguments:
    constraints = pathlib.Path(arguments[arguments.index("--constraint") + 1]).read_text()
with open(os.environ["FAKE_PIP_LOG"], "a") as file:
    file.write(json.dumps({"arguments": arguments, "constraints": constraints}) + "\\n")
if "FAKE_PIP_ERROR" in os.environ:
    print(os.environ["FAKE_PIP_ERROR"], file=sys.stderr)
    sys.exit(1)
site = pathlib.Path(__file__).parents[1]
for module in ("torch", "torchvision", "cv2"):
    if not (site / f"{module}.py").exists():
        (site / f"{module}.py").write_text("")
"""


def site_of(folder):
    return next(folder.glob("lib/python*/site-packages"))


def add_distribution(site, name, version, installer="pip"):
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if installer:
        (info / "INSTALLER").write_text(installer)
    return info


def put_fake_pip(folder):
    package = site_of(folder) / "pip"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(FAKE_PIP)


@pytest.fixture
def environment(tmp_path, monkeypatch, installer):
    """A folder for the environment; making one there is real but for its pip."""
    run = subprocess.run

    def run_venv(command, **options):
        if command[1:3] == ["-m", "venv"]:
            done = run([*command[:3], "--without-pip", *command[3:]], **options)
            put_fake_pip(Path(command[3]))
            return done
        return run(command, **options)

    monkeypatch.setattr(installer.subprocess, "run", run_venv)
    monkeypatch.setattr(installer, "SIZE_WITH_TORCH", (0, 0))
    monkeypatch.setattr(installer, "SIZE_WITHOUT_TORCH", (0, 0))
    monkeypatch.setenv("FAKE_PIP_LOG", str(tmp_path / "pip.jsonl"))
    return tmp_path / "env"


@pytest.fixture
def own(environment):
    """An environment that the user made: bare, with pip."""
    stdlib_venv.create(environment, with_pip=False, symlinks=True)
    put_fake_pip(environment)
    return environment


@pytest.fixture
def calls(tmp_path):
    """Returns pip's calls so far."""
    log = tmp_path / "pip.jsonl"
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def requirements_of(call):
    return [argument for argument in call["arguments"] if not argument.startswith("-")]


# A fresh environment


def test_fresh_environment_gets_everything_at_the_pinned_versions(installer, environment, calls):
    installer.install(environment)
    everything, frameworks, project = calls()
    assert everything["constraints"] == (ROOT / "requirements" / "constraints.txt").read_text()
    assert everything["arguments"][:2] == ["install", "--disable-pip-version-check"]
    assert {"--only-binary", ":all:"} <= set(everything["arguments"])
    for requirement in ("torch>=2.4", "torchvision", "opencv-python>=4.12", "lmdb", "pytest", "scikit-image"):
        assert requirement in everything["arguments"]
    assert {"--no-deps", "--no-build-isolation", "basicsr==1.4.2", "mmagic==1.2.0"} <= set(frameworks["arguments"])
    assert project["arguments"][-4:] == ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]


def test_second_run_does_nothing(installer, environment, calls, monkeypatch):
    installer.install(environment)
    done = len(calls())
    monkeypatch.setattr(installer, "probe", lambda python: pytest.fail("looked into a finished environment"))
    installer.install(environment)
    assert len(calls()) == done


def test_changed_requirements_are_installed(installer, environment, calls, monkeypatch, tmp_path):
    installer.install(environment)
    done = len(calls())
    changed = tmp_path / "requirements"
    changed.mkdir()
    for file in (ROOT / "requirements").glob("*.txt"):
        (changed / file.name).write_text(file.read_text())
    monkeypatch.setattr(installer, "REQUIREMENTS", changed)
    installer.install(environment)
    assert len(calls()) == done, "the same files elsewhere are no change"
    with (changed / "runtime.txt").open("a") as file:
        file.write("one-more\n")
    installer.install(environment)
    assert "one-more" in calls()[done]["arguments"]


def test_what_one_target_needs_is_added_for_it_alone(installer, environment, calls):
    installer.install(environment)
    assert "sphinx" not in calls()[0]["arguments"]
    done = len(calls())
    installer.install(environment, ("docs",))
    added = calls()[done]
    assert {"sphinx", "myst-parser", "furo", "pytest"} <= set(added["arguments"])
    assert added["constraints"] == (ROOT / "requirements" / "constraints.txt").read_text()
    done = len(calls())
    for more in ((), ("docs",)):
        installer.install(environment, more)
    assert len(calls()) == done


def test_old_python_is_not_held_to_the_pins(installer, environment, calls, monkeypatch):
    monkeypatch.setattr(installer, "PINNED_FROM", (*sys.version_info[:1], sys.version_info[1] + 1))
    installer.install(environment)
    assert "--constraint" not in calls()[0]["arguments"]


@pytest.mark.parametrize("left", ["state", "python"])
def test_environment_cut_short_while_made_is_made_anew(installer, environment, calls, left):
    environment.mkdir()
    installer.write_state(environment, {"created": False})
    if left == "python":
        (environment / "bin").mkdir()
        (environment / "bin" / "python").symlink_to(sys.executable)
        (environment / "lib64").symlink_to("lib")
    (environment / "leftover").write_text("")
    installer.install(environment)
    assert not (environment / "leftover").exists()
    assert installer.read_state(environment)["installed"] == installer.fingerprint()
    assert len(calls()) == 3


def test_environment_whose_python_went_away_is_made_anew(installer, environment):
    installer.install(environment)
    python = environment / "bin" / "python"
    python.unlink()
    python.symlink_to(environment / "gone")
    installer.install(environment)
    subprocess.run([python, "-c", ""], check=True)


def test_failed_install_goes_on_where_it_stopped(installer, environment, calls, monkeypatch):
    monkeypatch.setenv("FAKE_PIP_ERROR", "ERROR: boom")
    with pytest.raises(installer.SetupError, match="boom"):
        installer.install(environment)
    assert "installed" not in installer.read_state(environment)
    (environment / "kept").write_text("")
    monkeypatch.delenv("FAKE_PIP_ERROR")
    installer.install(environment)
    assert (environment / "kept").exists()
    assert len(calls()) == 1 + 3


def test_package_cut_short_is_installed_again(installer, environment):
    installer.install(environment)
    site = site_of(environment)
    whole, cut = add_distribution(site, "whole", "1.0"), add_distribution(site, "cut", "1.0", installer=None)
    installer.write_state(environment, {"created": True})
    installer.install(environment)
    assert whole.exists()
    assert not cut.exists()


# An environment of the user's own


def test_own_torch_is_kept(installer, own, calls):
    site = site_of(own)
    add_distribution(site, "torch", "2.4.1+cu121")
    add_distribution(site, "numpy", "1.26.4")
    add_distribution(site, "setuptools", "65.5.0")
    add_distribution(site, "Odd_Name", "1.0-custom")
    cut = add_distribution(site, "conda_made", "3.1", installer=None)
    (site / "torch.py").write_text("")
    installer.install(own)
    assert calls()[0]["constraints"] == "conda-made==3.1\nnumpy==1.26.4\ntorch==2.4.1+cu121\n"
    assert cut.exists(), "nothing of the user's is removed"
    assert "created" not in installer.read_state(own)
    done = len(calls())
    installer.install(own)
    assert len(calls()) == done


def test_torch_without_metadata_is_kept(installer, own, calls):
    (site_of(own) / "torch.py").write_text("")
    installer.install(own)
    assert not any(argument.startswith("torch>") for argument in calls()[0]["arguments"])


@pytest.mark.parametrize(
    ("module", "distribution", "requirement"),
    [("cv2", "opencv-python-headless", "opencv-python"), ("mmcv", "mmcv", "mmcv-lite==2.1.0")],
)
def test_no_second_owner_of_a_module(installer, own, calls, module, distribution, requirement):
    add_distribution(site_of(own), distribution, "2.1.0")
    (site_of(own) / f"{module}.py").write_text("")
    installer.install(own)
    asked = [argument for call in calls() for argument in call["arguments"]]
    assert requirement not in asked
    assert "numpy>=1.23" in asked
    assert "basicsr==1.4.2" in asked


def test_own_frameworks_are_kept(installer, own, calls):
    add_distribution(site_of(own), "mmengine", "0.10.5")
    (site_of(own) / "mmengine.py").write_text("")
    installer.install(own)
    assert requirements_of(calls()[1]) == ["install", "basicsr==1.4.2", "mmagic==1.2.0", "mmcv-lite==2.1.0"]


def test_own_environment_without_pip(installer, environment):
    stdlib_venv.create(environment, with_pip=False, symlinks=True)
    with pytest.raises(installer.SetupError, match="ensurepip"):
        installer.install(environment)


def test_folder_that_is_no_environment_is_left_alone(installer, environment):
    environment.mkdir()
    (environment / "thesis.txt").write_text("")
    with pytest.raises(installer.SetupError, match="not a Python environment"):
        installer.install(environment)
    assert [path.name for path in environment.iterdir()] == ["thesis.txt"]


def test_package_that_does_not_load_is_named(installer, own):
    (site_of(own) / "torch.py").write_text("")
    (site_of(own) / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(installer.SetupError, match=r"torchvision.*nms does not exist.*same source as torch"):
        installer.install(own)
    assert "installed" not in installer.read_state(own)


# What may be wrong with the machine


@pytest.mark.parametrize("version", [(2, 7), (3, 9), (3, 13), (4, 0)])
def test_unsupported_python(installer, version):
    with pytest.raises(
        installer.SetupError, match=rf"/usr/bin/x is Python {version[0]}\.{version[1]}, but 3.10 to 3.12"
    ):
        installer.check_version(version, "/usr/bin/x")


@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12)])
def test_supported_python(installer, version):
    installer.check_version(version, "python")


def test_environment_of_unsupported_python(installer, own, monkeypatch, calls):
    report = {"version": [3, 13], "packages": {}, "modules": ["pip"], "site": ""}
    monkeypatch.setattr(installer, "probe", lambda python: report)
    with pytest.raises(installer.SetupError, match=r"env/bin/python is Python 3\.13"):
        installer.install(own)
    assert not calls()


def test_old_interpreters_can_read_the_installer():
    ast.parse((ROOT / "requirements" / "install.py").read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_python_that_cannot_make_environments(installer, environment, monkeypatch, module):
    find_spec = installer.importlib.util.find_spec
    monkeypatch.setattr(installer.importlib.util, "find_spec", lambda name: None if name == module else find_spec(name))
    with pytest.raises(installer.SetupError, match=rf"no '{module}' module.*apt install python3\.\d+-venv"):
        installer.install(environment)
    assert not environment.exists()


def test_too_little_disk(installer, environment, monkeypatch, calls):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(installer.shutil, "disk_usage", lambda path: usage(100e9, 99e9, 1e9))
    monkeypatch.setattr(installer, "SIZE_WITH_TORCH", (6e9, 3e9))
    with pytest.raises(installer.SetupError, match=r"(9|6|3)\.0 GB are needed for .*1\.0 GB are free"):
        installer.install(environment)
    assert not calls()


def test_little_disk_is_enough_beside_torch(installer, own, monkeypatch, calls):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(installer.shutil, "disk_usage", lambda path: usage(100e9, 98e9, 2e9))
    monkeypatch.setattr(installer, "SIZE_WITH_TORCH", (6e9, 3e9))
    monkeypatch.setattr(installer, "SIZE_WITHOUT_TORCH", (1e9, 0.5e9))
    (site_of(own) / "torch.py").write_text("")
    installer.install(own)
    assert calls()


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
        (
            "WARNING: Retrying after NewConnectionError('<x>')\nERROR: No matching distribution found for lmdb",
            "network",
        ),
        ("ERROR: Could not find\nERROR: No matching distribution found for lmdb==3 (from x)", "package 'lmdb==3'"),
        ("ERROR: ResolutionImpossible: for help visit", "do not go with a package"),
        ("error: invalid-thing\nhint: see above", "^error: invalid-thing$"),
        ("Traceback\nImportError: libGL.so.1: cannot open shared object file", "^ImportError: libGL"),
        ("", "no reason"),
    ],
)
def test_pip_failures_become_one_line(installer, environment, monkeypatch, printed, told):
    monkeypatch.setenv("FAKE_PIP_ERROR", printed)
    with pytest.raises(installer.SetupError, match=told) as error:
        installer.install(environment)
    assert "\n" not in str(error.value)


# Through make


def make(*arguments, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True, timeout=60
    )


def test_make_reports_errors_in_one_line(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    done = make("env", f"VENV={tmp_path}")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert "not a Python environment" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_without_python(tmp_path):
    done = make("env", f"VENV={tmp_path / 'env'}", "PYTHON=python-that-is-not-there")
    assert done.returncode != 0
    assert "error: 'python-that-is-not-there' not found" in done.stderr


def test_make_passes_over_unsuitable_pythons(tmp_path):
    """The first candidate that can make an environment is used, not the first that exists."""
    for name, body in (("python3.11", "exit 1"), ("python3.12", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = make("--dry-run", "env", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert 'python="python3.12"' in done.stdout


@pytest.mark.parametrize(("target", "more"), [("docs", "--with docs "), ("test", ""), ("env", "")])
def test_make_asks_for_what_a_target_needs(target, more):
    done = make("--dry-run", target, "VENV=x", WITH="--with nothing")
    assert re.search(r"install\.py +(.*)\"x\"", done.stdout).group(1) == more


def test_make_lists_its_targets():
    done = make()
    assert done.returncode == 0
    for target in ("env", "demo", "test", "lint", "docs", "bench", "clean"):
        assert f"make {target}\t" in done.stdout
