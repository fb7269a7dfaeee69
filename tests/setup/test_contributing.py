"""The worked example of CONTRIBUTING.md, carried out on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = "panet_plugin", "configs", "tests", "tools", "results", "docs"


def edit(path, pattern, replacement):
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count == 1, f"{pattern} is {count} times in {path}"
    path.write_text(text)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The checkout with the example carried out but for the training."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (*FOLDERS, "README.md", "setup.cfg", ".ruff.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    network, config, yaml, family, test = re.findall(
        r"```(?:python|yaml)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    archs = folder / "panet_plugin" / "archs"
    (archs / "espcn.py").write_text(network)
    edit(archs / "__init__.py", r"__all__ = \[", 'from panet_plugin.archs.espcn import ESPCN\n\n__all__ = ["ESPCN", ')
    for bridge in ("basicsr", "mmagic"):
        init = folder / "panet_plugin" / "frameworks" / bridge / "__init__.py"
        edit(init, r"from panet_plugin\.archs import ", "from panet_plugin.archs import ESPCN, ")
        edit(init, r"(?m)^for network in \(", "for network in (ESPCN, ")
    edit(folder / "panet_plugin/catalog/model_index.py", r"FAMILIES = \(\n", f"FAMILIES = ({family.strip()}, ")
    (folder / "configs" / "espcn").mkdir()
    (folder / "configs" / "espcn" / "espcn_x2_div2k.py").write_text(config)
    (folder / "configs" / "basicsr" / "espcn_x2_div2k.yml").write_text(yaml)
    (folder / "tests" / "archs" / "test_espcn.py").write_text(test)
    run(folder, "tools/model_index.py")
    return folder


def run(folder, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_examples_own_tests_and_those_that_go_through_everything_pass(example):
    tests = ("tests/archs/test_espcn.py", "tests/frameworks/test_configs.py", "tests/catalog/test_model_index.py")
    chosen = "espcn or same_configs or file_exists"
    run(example, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", chosen)


def test_example_passes_the_linter(example):
    files = ("panet_plugin/archs/espcn.py", "configs", "tests/archs")
    run(example, "-m", "ruff", "check", "--no-cache", *files)
    run(example, "-m", "ruff", "format", "--no-cache", "--check", *files)
