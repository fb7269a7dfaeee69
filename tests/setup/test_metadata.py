import ast
import configparser
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import panet_plugin
from panet_plugin.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    *("panet_plugin", "configs", "tools", "data_prep", "tests", "requirements", "docs", "results"),
    *("setup.cfg", "pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
    "model-index.yml",  # where OpenMMLab's tools look for it
}


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_installed_metadata():
    installed = metadata.metadata("panet-plugin")
    assert installed["Name"] == "panet-plugin"
    assert installed["License-Expression"] == "Apache-2.0"
    assert installed["Version"] == panet_plugin.__version__
    assert any(line.startswith("torch") for line in metadata.requires("panet-plugin"))


def imports_of(folder):
    """Return the packages that modules import, by the names of their distributions."""
    names = {"PIL": "pillow", "cv2": "opencv-python", "yaml": "pyyaml", "skimage": "scikit-image"}
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {module.split(".")[0] for module in modules if module}
    return {names.get(name, name) for name in found if name not in sys.stdlib_module_names} - {"panet_plugin"}


def test_the_package_requires_what_it_imports(setup_cfg, installer):
    required = {re.split("[<>=]", line)[0] for line in setup_cfg["options"]["install_requires"].split()}
    optional = {"basicsr", "mmagic", "mmcv", "triton", "bm3d", "onnx", "onnxruntime", "onnxscript", "spandrel"}
    optional |= {"torchmetrics", "torchvision", "setuptools"}
    # What is imported needs it for what is called, and does not require it.
    indirect = {"pywavelets"}
    assert imports_of(ROOT / "panet_plugin") - optional == required - indirect
    known = {*installer.read_requirements("torch", "runtime", "frameworks")}
    assert required <= known
    assert set(optional - {"triton", "bm3d", "onnx", "mmcv"}) <= known | set(installer.read_requirements("tests"))


def test_extras(setup_cfg, installer):
    extras = {name: packages.split() for name, packages in setup_cfg["options.extras_require"].items()}
    assert set(extras) == {"basicsr", "mmagic", "bm3d", "export", "lpips", "spandrel", "all"}
    assert extras.pop("all") == ["panet-plugin[basicsr,mmagic,export,lpips,spandrel]"]
    packages = {package for named in extras.values() for package in named}
    # bm3d is not free for every use: no test asks for it.
    assert packages - {"bm3d"} <= set(installer.read_requirements("torch", "runtime", "tests"))
    assert packages - {"torchvision"} <= set(installer.read_requirements("constraints"))


def test_the_command_runs_what_the_scripts_run(tmp_path):
    def run(*command):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    listing = run(sys.executable, "-m", "panet_plugin")
    assert listing.returncode == 0
    for name, (module, purpose) in COMMANDS.items():
        assert f"{name} " in listing.stdout and purpose in listing.stdout
        assert (ROOT / f"tools/{module}.py").is_file()
    assert {path.stem for path in (ROOT / "panet_plugin/commands").glob("[a-z]*.py")} == {
        m for m, _ in COMMANDS.values()
    }
    wrong = run(sys.executable, "-m", "panet_plugin", "restroe")
    assert wrong.returncode == 1 and "unknown command 'restroe'; expected one of restore, train" in wrong.stderr
    usage = run(sys.executable, "-m", "panet_plugin", "restore")
    assert usage.returncode == 2 and usage.stderr.startswith("usage: panet restore ")


def test_license_text():
    text = (ROOT / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]


def test_pyproject_names_only_the_build_system():
    assert re.findall(r"^\[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE) == ["build-system"]


def test_python_versions_agree(setup_cfg):
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", setup_cfg["options"]["python_requires"]).groups())
    makefile = (ROOT / "Makefile").read_text()
    assert f"(3, {low}) <= sys.version_info[:2] <= (3, {high - 1})" in makefile
    assert " ".join(f"python3.{minor}" for minor in range(high - 1, low - 1, -1)) in makefile
    for page in ("Makefile", "README.md", "CONTRIBUTING.md"):
        assert f"Python 3.{low} to 3.{high - 1}" in (ROOT / page).read_text()


def test_every_requirement_is_pinned_for_every_python(installer):
    direct = installer.read_requirements("torch", "runtime", "sample", "tests", "docs", "browser", "bm3d")
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==[\w.]+( ; .+)?", line) for line in lines if not line.startswith("#")]
    assert all(pins), "versions and nothing else"
    always = {pin[1] for pin in pins if not pin[2]}
    by_version = {pin[1] for pin in pins if pin[2] and "python_full_version < '3.11'" in pin[2]}
    assert set(direct) <= always | by_version
    for line in installer.read_requirements("frameworks").values():
        assert re.fullmatch(r"[\w.-]+==[\d.]+", line)


def test_top_level_holds_only_what_belongs_there():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = {line.split("/")[0] for line in files.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_ci_runs_what_the_readme_names(tmp_path):
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    (tmp_path / "make").write_text('#!/bin/sh\necho "$PWD: make $*"\ntest "$1" != test || exit 7\n')
    (tmp_path / "make").chmod(0o755)
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "".join(f"{ROOT}: make {target}\n" for target in ("lint", "docs", "test"))
    assert done.returncode == 7
    for command in ("make lint", "make docs", "make test"):
        assert command in (ROOT / "README.md").read_text()


def test_workflows_run_targets_that_exist():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    targets = re.findall(r"(?m)^([a-z-]+):.* ## ", (ROOT / "Makefile").read_text())
    jobs = workflow["jobs"]
    assert jobs["test"]["steps"][-1]["run"].startswith("make test ")
    assert jobs["check"]["steps"][-1]["run"].startswith("make ${{ matrix.target }} ")
    assert set(jobs["check"]["strategy"]["matrix"]["target"]) <= set(targets)
    assert {"lint", "docs", "sanitize"} <= set(jobs["check"]["strategy"]["matrix"]["target"])
    assert {"3.10", "3.11", "3.13"} <= set(jobs["test"]["strategy"]["matrix"]["python"])


def test_hooks_use_the_pinned_linter(installer):
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    revisions = {repo["repo"].rpartition("/")[-1]: repo["rev"] for repo in hooks["repos"]}
    pinned = installer.read_requirements("constraints")["ruff"]
    assert f"ruff=={revisions['ruff-pre-commit'].removeprefix('v')}" == pinned
