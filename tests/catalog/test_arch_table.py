"""The table of the docs: what is listed there is true, and nothing is missing."""

import runpy
from pathlib import Path

import pytest

from panet_plugin.catalog.arch_table import EXAMPLES, REASONS, TITLED, check, table

DOCS = Path(__file__).parents[2] / "docs" / "archs.md"


@pytest.mark.filterwarnings("ignore")  # of the archs
@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if not example.slow],
    ids=lambda example: f"{example.framework}-{example.arch}",
)
def test_insertion_works(example):
    assert check(example) > 0


def test_docs_hold_the_table():
    assert DOCS.read_text(encoding="utf-8").endswith(f"\n\n{table()}")


def test_the_tool_writes_the_table(tmp_path, monkeypatch, capsys):
    tool = runpy.run_path(str(DOCS.parents[1] / "tools" / "list_archs.py"))
    monkeypatch.setitem(tool["main"].__globals__, "EXAMPLES", EXAMPLES[:1])
    (tmp_path / "archs.md").write_text("Words.\n\n| framework | old |\n", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["list_archs.py", "--out", str(tmp_path / "archs.md")])
    tool["main"]()
    assert (tmp_path / "archs.md").read_text(encoding="utf-8") == f"Words.\n\n{table()}"
    assert "BasicSR ECBSR: 9 places" in capsys.readouterr().out


@pytest.mark.parametrize("framework", TITLED)
def test_every_registered_arch_is_in_the_table_once(framework):
    listed = [example.arch for example in EXAMPLES if example.framework == framework]
    listed += [name for names in REASONS[framework].values() for name in names]
    assert sorted(listed) == sorted(TITLED[framework].load("archs").own_archs())


def test_a_claim_that_is_not_true_is_an_error():
    example = next(example for example in EXAMPLES if example.arch == "SRCNNNet")
    with pytest.raises(ValueError, match="no module 'conv9'"):
        check(type(example)(example.framework, example.arch, "conv9", example.arguments))
