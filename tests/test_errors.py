import ast
import pickle
from pathlib import Path

import pytest

from panet_plugin import errors
from panet_plugin.data.archives import BadArchiveError
from panet_plugin.data.download import DownloadError
from panet_plugin.data.image_reader import BadImageError

PACKAGE = Path(errors.__file__).parent


def test_every_error_of_the_package_derives_from_the_one_base():
    bases = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    ours = {name for name in bases if name.endswith("Error")}
    derived = {"PanetError"}
    while more := {name for name in ours - derived if bases[name] & derived}:
        derived |= more
    assert len(ours) > 10
    assert ours == derived


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        *((error, ValueError) for error in (errors.CheckpointError, errors.ConfigError, errors.EvaluationError)),
        *((error, ValueError) for error in (errors.ExportError, BadImageError, BadArchiveError)),
        (errors.TrainingError, RuntimeError),
        (DownloadError, OSError),
    ],
)
def test_the_builtin_bases_that_users_may_catch(error, builtin):
    assert issubclass(error, builtin)
    # Processes that load data pass errors on.
    copy = pickle.loads(pickle.dumps(error("a.png: damaged")))
    assert type(copy) is error and str(copy) == "a.png: damaged"


def test_long_lists_are_cut():
    assert errors.shorten(["a", "b"]) == "a, b"
    assert errors.shorten("x" * 9, limit=8) == "xxxxx..."
    assert errors.list_lines(["a", "b", "c"], limit=2) == "\n  a\n  b\n  ... and 1 more"
