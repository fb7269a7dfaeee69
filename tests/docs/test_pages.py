"""Links, lists and tables of the pages against what is there. ``make docs`` checks the site itself."""

import ast
import fnmatch
import re
from pathlib import Path

import pages
import parsers
import pytest
from small_runs import BASICSR_CONFIGS, MMAGIC_CONFIGS

ROOT = pages.ROOT


def slug(heading):
    """Return the anchor that GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", pages.PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", pages.prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        headings = re.findall(r"(?m)^#+ (.+)$", pages.FENCE.sub("", file.read_text(encoding="utf-8"))) if anchor else []
        assert not anchor or anchor in map(slug, headings), f"{page}: {target}"


def test_the_index_lists_every_page_once():
    listed = [line for block in pages.blocks("docs/index.md") for line in block.text.splitlines()]
    names = [line for line in listed if line and not line.startswith(":") and line != "api/index"]
    assert sorted(names) == sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index")


def test_the_readme_links_to_every_page():
    linked = set(re.findall(r"\]\(docs/(\w+)\.md", pages.read("README.md")))
    shown_here = {"index", "contributing", "changelog"}
    assert linked == {path.stem for path in (ROOT / "docs").glob("*.md")} - shown_here


def test_the_tools_page_lists_every_script_once():
    named = re.findall(r"`((?:tools|data_prep)/\w+\.\w+)`", pages.read("docs/tools.md"))
    assert sorted(named) == sorted(parsers.scripts())


def expand(pattern):
    """Return the names that ``a{1,2}b`` stands for; others stand for themselves."""
    head, brace, rest = pattern.partition("{")
    levels, _, tail = rest.partition("}")
    return [f"{head}{level}{tail}" for level in levels.split(",")] if brace else [pattern]


def test_the_training_page_lists_every_config():
    rows = re.findall(r"(?m)^\| (`[^|]*) \|", pages.read("docs/training.md"))
    for found, suffix in ((MMAGIC_CONFIGS, "py"), (BASICSR_CONFIGS, "yml")):
        configs = {path.stem for path in found}
        listed = [row for row in rows if suffix == "py" or "(MMEngine only)" not in row]
        names = [name for row in listed for code in re.findall(r"`([a-z]+_[^`]+)`", row) for name in expand(code)]
        assert [name for name in names if not fnmatch.filter(configs, name)] == []
        assert {name for name in configs if not any(fnmatch.fnmatch(name, pattern) for pattern in names)} == set()


def imports(path):
    """Return the packages and modules of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("panet_plugin."))


def test_the_table_of_rooms_is_kept():
    rows = re.findall(r"(?m)^\| `(\w+)` \| .* \| ([^|]*) \|$", pages.read("docs/design.md"))
    rooms = [name for name, _ in rows]
    package = ROOT / "panet_plugin"
    assert {path.parent.name for path in package.glob("*/__init__.py")} | {"checkpoints"} == set(rooms)
    for name, text in rows:
        # The table is read from the bottom: a room may enter itself and those that it lists, or all, less some.
        listed = set(re.findall(r"`(\w+)`", text))
        allowed = {name} | (set(rooms) - listed if text.startswith("all") else listed)
        files = (package / name).rglob("*.py") if (package / name).is_dir() else [package / f"{name}.py"]
        for file in files:
            entered = set(imports(file)) & set(rooms)
            assert entered <= allowed, f"{Path(file).relative_to(ROOT)} imports {entered - allowed}"
