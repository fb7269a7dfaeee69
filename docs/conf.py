"""The documentation's settings for Sphinx: ``make docs``.

The pages are the Markdown files of this folder, README.md, CONTRIBUTING.md and CHANGELOG.md, all of which are read on
GitHub as well. What would go stale is made here: the API reference from every ``__all__``, and the options of all
scripts from their parsers.
"""

import importlib
import inspect
import os
import sys
from itertools import takewhile
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

from parsers import parser_of, scripts  # noqa: E402 - needs the path

import panet_plugin  # noqa: E402 - needs the path

project = "panet_plugin"
author = "the authors of panet_plugin"
version = release = panet_plugin.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

html_theme = "furo"
html_title = f"panet_plugin {version}"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["wide.css"]
myst_heading_anchors = 3  # links such as tasks.md#protocols

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
maximum_signature_line_length = 100
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"
add_module_names = False

# Every reference to a name of ours must lead somewhere; to look up those of other packages takes a network.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!panet_plugin\b).*")]

logger = logging.getLogger(__name__)
#: Pages that show a file of the project's top folder.
TOP_FILES = {"index": "README.md", "contributing": "CONTRIBUTING.md", "changelog": "CHANGELOG.md"}


def setup(app: Sphinx) -> None:
    """Connect what is made during the build."""
    app.connect("builder-inited", lambda app: write_api_pages())
    app.connect("source-read", complete_page)
    app.connect("autodoc-process-docstring", find_comment, priority=900)  # after napoleon, which is for docstrings
    app.connect("autodoc-skip-member", skip_constant)
    app.connect("autodoc-process-bases", hide_private_bases)
    app.connect("object-description-transform", drop_repetition, priority=900)  # after types were added
    app.connect("missing-reference", find_public_name)


def public_names() -> dict[str, list[str]]:
    """Return the public names of every documented module."""
    paths = [path for path in sorted((ROOT / "panet_plugin").rglob("*.py")) if "\n__all__ = " in path.read_text()]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    names = {module: importlib.import_module(module).__all__ for module in modules}

    # What a package lists again, such as its errors, is described where it is defined.
    def is_at_home(module: str, name: str) -> bool:
        home = getattr(getattr(sys.modules[module], name), "__module__", module)
        return home == module or name not in names.get(home, ())

    return {module: [name for name in names[module] if is_at_home(module, name)] for module in sorted(names)}


def write_api_pages() -> None:
    """Write a page per module, and their list."""
    folder = DOCS / "api"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        old.unlink()
    modules = public_names()
    toctree = "".join(f"   {module.partition('.')[2]} <{module}>\n" for module in modules)
    text = f"{heading('API reference')}\n.. toctree::\n\n{toctree}"
    (folder / "index.rst").write_text(text, encoding="utf-8")
    for module, names in modules.items():
        text = f"{heading(module)}\n.. automodule:: {module}\n   :no-members:\n\n"
        for name in names:
            value = getattr(sys.modules[module], name)
            kind = "class" if inspect.isclass(value) else "function" if callable(value) else "data"
            text += f".. auto{kind}:: {module}.{name}\n"
            if kind == "class":
                text += "   :members:\n" + "   :show-inheritance:\n" * (value.__bases__ != (object,))
            elif kind == "data" and len(repr(value)) > 100:
                text += "   :no-value:\n"
            text += "\n"
        (folder / f"{module}.rst").write_text(text, encoding="utf-8")


def heading(title: str) -> str:
    """Return a heading in reStructuredText."""
    return f"{title}\n{'=' * len(title)}\n"


def complete_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put in what a page shows of files outside this folder, and make its links lead to other pages."""
    if page in TOP_FILES:
        text = (ROOT / TOP_FILES[page]).read_text(encoding="utf-8")
        # The list of pages is the index's own.
        source[0] = f"{text}\n{source[0]}" if page == "index" else text
    if page == "tools":
        source[0] += "".join(f"\n## {script}\n\n```text\n{help_of(script)}```\n" for script in scripts())
    for target, file in TOP_FILES.items():
        source[0] = source[0].replace(f"](../{file}", f"]({target}.md").replace(f"]({file}", f"]({target}.md")
    source[0] = source[0].replace("](docs/", "](")


def help_of(script: str) -> str:
    """Return what a Python script prints when it is asked for help, or the comment at the top of a shell script."""
    if script.endswith(".sh"):
        lines = (ROOT / script).read_text(encoding="utf-8").splitlines()[1:]
        return "".join(f"{line[2:]}\n" for line in takewhile(lambda line: line.startswith("# "), lines))
    os.environ["COLUMNS"] = "82"  # what a block of code has room for
    return parser_of(script).format_help()


def find_comment(app: Sphinx, kind: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Describe a constant by the comment at its definition, which is in another module than its public name."""
    package, constant = name.partition(".")[0], name.rpartition(".")[2]
    if kind != "data":
        return
    for origin in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        comments = ModuleAnalyzer.for_module(origin).find_attr_docs()
        if ("", constant) in comments and getattr(sys.modules[origin], constant) is value:
            lines[:] = comments["", constant]
            return
    logger.warning("%s has no comment (#:) that describes it", name)


def skip_constant(app: Sphinx, kind: str, name: str, value: object, skip: bool, options: object) -> bool | None:
    """Leave out an object of ours in a class: it would be shown for the docstring of its own class."""
    return True if type(value).__module__.startswith("panet_plugin.") else None


def hide_private_bases(app: Sphinx, name: str, value: type, options: object, bases: list[type]) -> None:
    """Show the bases of private bases instead of these."""
    while private := [base for base in bases if getattr(base, "__name__", "").startswith("_")]:
        at = bases.index(private[0])
        bases[at : at + 1] = private[0].__bases__


def drop_repetition(app: Sphinx, domain: str, kind: str, content: nodes.Element) -> None:
    """Leave out the arguments of a dataclass that are described as its attributes."""
    for fields in content.children:
        if isinstance(fields, nodes.field_list):
            words = {field: field[0].astext().split() for field in fields}
            attributes = {names[-1] for names in words.values() if names[0] == "ivar"}
            for field, names in words.items():
                if names[0] in ("param", "type") and names[-1] in attributes:
                    fields.remove(field)


def find_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a reference to where something is defined as one to where it is public."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("panet_plugin."):
        return None
    package, _, name = target.rpartition(".")
    while package := package.rpartition(".")[0]:
        domain = env.get_domain("py")
        if f"{package}.{name}" in domain.objects:
            return domain.resolve_xref(
                env, node["refdoc"], app.builder, node["reftype"], f"{package}.{name}", node, text
            )
    return None
