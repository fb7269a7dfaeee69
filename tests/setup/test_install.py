"""The installer, against real virtual environments and a uv that is a recorder: nothing is downloaded."""

import builtins
import json
import os
import re
import subprocess
import sys
import venv as stdlib_venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands for `uv`: notes its arguments and constraints, "installs" what the installer imports at the end, or fails.
FAKE_UV = f"""#!{sys.executable}
import json, os, pathlib, sys
arguments = sys.argv[1:]
constraints = None
if "--constraint" in arguments:
    constraints = pathlib.Path(arguments[arguments.index("--constraint") + 1]).read_text()
with open(os.environ["FAKE_UV_LOG"], "a") as file:
    file.write(json.dumps({{"arguments": arguments, "constraints": constraints}}) + "\\n")
if "FAKE_UV_FAILS" in os.environ:
    sys.exit("boom")
(site,) = pathlib.Path(arguments[arguments.index("--python") + 1]).parents[1].glob("lib/python*/site-packages")
for module in ("torch", "torchvision", "cv2"):
    if not (site / f"{{module}}.py").exists():
        (site / f"{{module}}.py").write_text("")
"""


def site_of(folder):
    return next(folder.glob("lib/python*/site-packages"))


def add_distribution(site, name, version, module=None):
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if module:
        (site / f"{module}.py").write_text("")


@pytest.fixture
def environment(tmp_path, monkeypatch, installer):
    """A folder for the environment; making one there is real but for its pip."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(FAKE_UV)
    (tmp_path / "bin" / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_UV_LOG", str(tmp_path / "uv.jsonl"))
    run = installer.run

    def run_without_pip(*command, **variables):
        run(*command, *(["--without-pip"] if command[1:3] == ("-m", "venv") else []), **variables)

    monkeypatch.setattr(installer, "run", run_without_pip)
    return tmp_path / "env"


@pytest.fixture
def own(environment):
    """An environment that the user made."""
    stdlib_venv.create(environment, with_pip=False, symlinks=True)
    return environment


@pytest.fixture
def calls(tmp_path):
    """Returns uv's calls so far."""
    log = tmp_path / "uv.jsonl"
    return lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


# An environment of ours


def test_a_fresh_environment_gets_everything_at_the_pinned_versions(installer, environment, calls):
    installer.install(environment)
    everything, frameworks, project = calls()
    assert everything["constraints"] == (ROOT / "requirements" / "constraints.txt").read_text()
    assert {"--only-binary", ":all:"} <= set(everything["arguments"])
    for requirement in ("torch>=2.4", "torchvision", "opencv-python>=4.12", "lmdb", "pytest", "scikit-image"):
        assert requirement in everything["arguments"]
    assert "sphinx" not in everything["arguments"]
    assert {"--no-deps", "--no-build-isolation", "basicsr==1.4.2", "mmagic==1.2.0"} <= set(frameworks["arguments"])
    assert project["arguments"][-4:] == ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]


def test_a_second_run_does_nothing(installer, environment, calls):
    installer.install(environment)
    installer.install(environment)
    assert len(calls()) == 3


def test_changed_requirements_are_installed_into_the_same_environment(installer, environment, calls, monkeypatch):
    installer.install(environment)
    (environment / "kept").write_text("")
    monkeypatch.setattr(installer, "fingerprint", lambda: "another")
    installer.install(environment)
    assert len(calls()) == 6
    assert (environment / "kept").exists()


def test_the_fingerprint_follows_every_file_of_requirements(installer, monkeypatch, tmp_path):
    before = installer.fingerprint()
    for file in (ROOT / "requirements").glob("*.txt"):
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr(installer, "REQUIREMENTS", tmp_path)
    assert installer.fingerprint() == before
    (tmp_path / "runtime.txt").open("a").write("one-more\n")
    assert installer.fingerprint() != before


def test_what_one_target_needs_is_added_for_it_and_stays(installer, environment, calls, monkeypatch):
    installer.install(environment)
    installer.install(environment, ("docs",))
    assert {"sphinx", "myst-parser", "furo", "pytest"} <= set(calls()[3]["arguments"])
    for groups in ((), ("docs",)):
        installer.install(environment, groups)
    assert len(calls()) == 6


@pytest.mark.parametrize("broken", ["failed", "interpreter"])
def test_an_unfinished_or_broken_environment_is_made_again(installer, environment, monkeypatch, broken):
    if broken == "failed":
        monkeypatch.setenv("FAKE_UV_FAILS", "1")
        with pytest.raises(SystemExit, match=r"error: 'uv pip install .*' failed: see above"):
            installer.install(environment)
        monkeypatch.delenv("FAKE_UV_FAILS")
    else:
        installer.install(environment)
        (environment / "bin" / "python").unlink()
    (environment / "leftover").write_text("")
    installer.install(environment)
    assert not (environment / "leftover").exists()
    subprocess.run([environment / "bin" / "python", "-c", "import torch"], check=True)


def test_two_runs_wait_for_each_other(environment, calls):
    python = [sys.executable, ROOT / "requirements" / "install.py"]
    runs = [subprocess.Popen([*python, environment]) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(calls()) == 3, "the second one found everything there"


# An environment of the user's own


def test_what_the_user_has_is_kept(installer, own, calls):
    site = site_of(own)
    add_distribution(site, "torch", "2.4.1+cu121", "torch")
    add_distribution(site, "setuptools", "65.5.0")
    add_distribution(site, "conda_made", "3.1")
    add_distribution(site, "Odd_Name", "1.0-custom")
    installer.install(own)
    assert calls()[0]["constraints"] == "conda-made==3.1\ntorch==2.4.1+cu121\n"
    assert "torch>=2.4" in calls()[0]["arguments"], "its version is checked"
    installer.install(own)
    assert len(calls()) == 3


@pytest.mark.parametrize(
    ("module", "distribution", "requirement"),
    [
        ("cv2", "opencv-python-headless", "opencv-python>=4.12"),
        ("mmcv", "mmcv", "mmcv-lite==2.1.0"),
        ("torch", None, "torch>=2.4"),
    ],
)
def test_no_second_owner_of_a_module(installer, own, calls, module, distribution, requirement):
    if distribution:
        add_distribution(site_of(own), distribution, "2.1.0")
    (site_of(own) / f"{module}.py").write_text("")
    installer.install(own)
    asked = [argument for call in calls() for argument in call["arguments"]]
    assert requirement not in asked
    assert {"numpy>=1.23", "basicsr==1.4.2"} <= set(asked)


def test_the_users_frameworks_are_kept(installer, own, calls):
    add_distribution(site_of(own), "mmengine", "0.10.5", "mmengine")
    installer.install(own)
    asked = [argument for argument in calls()[1]["arguments"] if "==" in argument]
    assert asked == ["basicsr==1.4.2", "mmagic==1.2.0", "mmcv-lite==2.1.0"]


def test_with_all_frameworks_there_none_is_asked_for(installer, own, calls):
    for module in ("basicsr", "mmagic", "mmengine", "mmcv"):
        (site_of(own) / f"{module}.py").write_text("")
    installer.install(own)
    assert len(calls()) == 2


def test_after_a_failure_nothing_of_the_users_is_removed(installer, own, monkeypatch):
    monkeypatch.setenv("FAKE_UV_FAILS", "1")
    for _ in range(2):
        with pytest.raises(SystemExit):
            installer.install(own)
    monkeypatch.delenv("FAKE_UV_FAILS")
    (own / "thesis.txt").write_text("")
    installer.install(own)
    assert (own / "thesis.txt").exists()


def test_a_folder_that_is_no_environment_is_left_alone(installer, environment):
    environment.mkdir()
    (environment / "thesis.txt").write_text("")
    with pytest.raises(SystemExit, match="not a Python environment"):
        installer.install(environment)
    assert [path.name for path in environment.iterdir()] == ["thesis.txt"]


def test_a_package_that_does_not_load_is_an_error(installer, own, capfd):
    (site_of(own) / "torch.py").write_text("")
    (site_of(own) / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    with pytest.raises(SystemExit, match="import torch, torchvision, cv2"):
        installer.install(own)
    assert "nms does not exist" in capfd.readouterr().err


# BasicSR's setup.py


def test_exec_writes_into_the_locals_of_a_function(installer, monkeypatch):
    """As BasicSR's setup.py expects, and only where the caller named no scope."""
    monkeypatch.setattr(sys, "version_info", (3, 13))
    monkeypatch.setattr(builtins, "exec", exec)  # put back afterward
    namespace = {}
    exec(
        installer.SITECUSTOMIZE
        + "def version():\n    builtins.exec('__version__ = 1')\n    return locals()['__version__']\n"
        + "builtins.exec('top = 1')\nbuiltins.exec('given = 2', scope := {})\n",
        namespace,
    )
    assert namespace["version"]() == 1
    assert namespace["top"] == 1
    assert namespace["scope"]["given"] == 2 and "given" not in namespace


# Through make


def make(*arguments, **variables):
    # Without what the make that runs the tests was given.
    given = ("MAKE", "PYTHON", "VENV", "WITH", "ARGS", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(given) or name == "PYTHONPATH"}
    return subprocess.run(["make", *arguments], cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True)


def test_make_passes_errors_on(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    done = make("env", f"VENV={tmp_path}")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ") and "not a Python environment" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["python-that-is-not-there", ""])
def test_make_without_python(tmp_path, missing):
    done = make("env", f"VENV={tmp_path / 'env'}", f"PYTHON={missing}")
    assert done.returncode != 0
    assert "error: no Python 3.10 to 3.14" in done.stderr


def test_make_takes_the_newest_python_that_can(tmp_path):
    """Not the first that exists: one is missing, one cannot make environments."""
    for name, body in (("python3.14", "exit 1"), ("python3.13", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    done = make("--dry-run", "env", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert '"python3.13" requirements/install.py' in done.stdout


@pytest.mark.parametrize("version", [(3, 9), (3, 15), (2, 7)])
def test_make_passes_over_unsupported_pythons(tmp_path, version):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"import sys\nsys.version_info = {version}\n")
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3.10", "python3"):
        (tmp_path / name).write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path}/site exec "{sys.executable}" "$@"\n')
        (tmp_path / name).chmod(0o755)
    done = make("env", f"VENV={tmp_path / 'env'}", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode != 0 and "error: no Python 3.10 to 3.14" in done.stderr


@pytest.mark.parametrize(("target", "groups"), [("docs", "docs"), ("test", ""), ("env", "")])
def test_make_asks_for_what_a_target_needs(target, groups):
    done = make("--dry-run", target, "VENV=x", WITH="nothing")
    assert re.search(r'install\.py "x"(.*)', done.stdout).group(1).strip() == groups


def test_make_lists_its_targets():
    done = make()
    assert done.returncode == 0
    for target in ("env", "demo", "test", "lint", "docs", "bench", "clean"):
        assert f"make {target}\t" in done.stdout
