"""Reading configs of both frameworks as plain values: nothing in them is executed."""

from __future__ import annotations

import ast
import os
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from panet_plugin.errors import ConfigError

if TYPE_CHECKING:
    from mmengine.config import Config

#: Maximum number and nesting depth of the values in a config; real configs have some hundred values. With nested
#: references, a few lines can expand to billions.
MOST_VALUES, DEEPEST = 100_000, 50

_KINDS = {".py": (".py",), ".yml": (".yml", ".yaml"), ".yaml": (".yml", ".yaml")}


class NotPlain(str):
    """Replaces a value of a ``.py`` config that is not a literal, such as the result of a call; the text locates it."""


def read_plain(path: Path, *, _within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a config with its ``_base_`` files, merged as by MMEngine, without executing any of it.

    ``{{$VARIABLE:default}}``, ``{{fileBasename}}`` and the like are supported as in MMEngine's configs, but not
    ``{{_base_.name}}`` and ``package::config``.

    Args:
        path: A ``.yml`` or ``.yaml`` file, or a ``.py`` file of assignments; the bases are of the same kind.

    Returns:
        The values by name; values of a ``.py`` file that are not plain become :class:`NotPlain`.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If a file contains anything else.
    """
    from mmengine.config import Config  # Not at the top: only needed for reading configs.

    if (place := path.resolve()) in _within:
        raise ConfigError(f"{path}: a _base_ of itself")
    try:
        text = _substitute(path.read_text(encoding="utf-8"), path)
        values: Any = assignments(text) if path.suffix == ".py" else parse_yaml(text)
        if not isinstance(values, dict):
            raise ConfigError(f"expected names and values, found {type(values).__name__}")
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    bases = values.pop("_base_", [])
    inherited: dict[str, Any] = {}
    for base in bases if isinstance(bases, (list, tuple)) else [bases]:
        file = path.parent / str(base)
        if isinstance(base, NotPlain) or file.suffix not in _KINDS[path.suffix] or not file.is_file():
            raise ConfigError(f"{path}: _base_: expected an existing {path.suffix} file, found {base!r}")
        found = read_plain(file, _within=(*_within, place))
        if twice := inherited.keys() & found.keys():
            raise ConfigError(f"{path}: two _base_ files have {', '.join(sorted(twice))}")
        inherited |= found
    for name, value in values.items():
        # The value that this would be merged into is unknown.
        if isinstance(value, Mapping) and isinstance(inherited.get(name), NotPlain):
            values[name] = inherited[name]
    try:
        merged = Config(inherited)
        merged.merge_from_dict(values, allow_list_keys=False)
        return merged.to_dict()
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be merged into its _base_ ({error})") from error


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a value of a config if it is a mapping, otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


def positive_side(value: Any, scale: Any = 1) -> int | None:
    """Return a number of pixels from a config, divided by a scale; None if these are not positive integers."""
    if not all(isinstance(number, int) and number > 0 for number in (value, scale)):
        return None
    return value // scale or None


def override(config: Config, options: Mapping[str, Any], name: str | os.PathLike) -> None:
    """Override values of a config by dotted names.

    Args:
        config: The config, which is modified in place.
        options: The new values.
        name: Name of the config for error messages.

    Raises:
        ConfigError: If a name leads into a value that is not a mapping or list.
    """
    for key, value in options.items():
        try:
            config.merge_from_dict({key: _bounded(value)})
        except (AttributeError, ConfigError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
            shown = reprlib.repr(value)  # limits the depth
            raise ConfigError(f"{name}: cannot apply the override {key}={shown} ({error})") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values, with the same result as in BasicSR and MMEngine.

    Raises:
        ConfigError: If it contains anything else; the message names the line.
    """
    try:
        found = yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}{error.problem}") from error
    # For values such as `!!int one`, or nesting that is too deep.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"not YAML of plain values ({' '.join(str(error).split())})") from error
    return _bounded(found)


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader with support for tuples, which MMEngine writes.

    Not the C loader, which crashes on deeply nested values.
    """

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Refuse deeply nested brackets early: the scanner's time grows with the square of their depth."""
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(None, None, f"values nested more than {DEEPEST} deep", self.get_mark())
        super().fetch_flow_collection_start(token)


def _tuple(loader: _PlainLoader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node))


def _refuse(loader: _PlainLoader, node: yaml.Node) -> None:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    problem = f"tag {tag!r} is not allowed: expected plain values"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_PlainLoader.add_constructor(None, _refuse)


def assignments(text: str) -> dict[str, Any]:
    """Return the assignments in the text of a ``.py`` config: literals, ``dict(...)`` and names assigned before.

    Raises:
        ConfigError: If it contains other statements, or is not valid Python.
    """
    try:
        body = ast.parse(text).body
    # For NUL bytes, or nesting that is too deep.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"not Python of plain values ({type(error).__name__}: {error})") from error
    values: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a string used as a comment
        line = f"line {node.lineno}: expected plain values, found {text.splitlines()[node.lineno - 1][:80]}"
        names = [name.id for name in node.targets if isinstance(name, ast.Name)] if isinstance(node, ast.Assign) else []
        if not isinstance(node, ast.Assign) or len(names) != len(node.targets):
            raise ConfigError(line)
        try:
            value = _literal(node.value, values)
        except (ValueError, TypeError, RecursionError, MemoryError):
            value = NotPlain(line)
        values |= dict.fromkeys(names, value)
    return _bounded(values)


def _bounded(value: Any) -> Any:
    """Return a value; ConfigError if it contains too many values, counting repeated references."""
    level = [value]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ConfigError(f"more than {MOST_VALUES} values, or values nested more than {DEEPEST} deep")
        within = (item.values() if isinstance(item, Mapping) else item for item in level)
        level = [
            other for items in within if isinstance(items, Iterable) and not isinstance(items, str) for other in items
        ]
    return value


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Evaluate an expression as :func:`ast.literal_eval`, with support for ``dict(...)`` and names.

    Raises:
        ValueError: If it is anything else.
    """
    match node:
        case ast.Name(id=name) if name in names and not isinstance(names[name], NotPlain):
            return names[name]
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=items) if all(item.arg for item in items):
            return {item.arg: _literal(item.value, names) for item in items}
        case ast.Dict(keys=keys, values=values) if all(keys):
            pairs = zip(keys, values, strict=True)
            return {_literal(key, names): _literal(value, names) for key, value in pairs if key}
        case ast.List(elts=items):
            return [_literal(item, names) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item, names) for item in items)
    return ast.literal_eval(node)


def _substitute(text: str, path: Path) -> str:
    """Substitute values for ``{{...}}``, as in MMEngine."""
    known = {
        "fileDirname": path.absolute().parent.as_posix(),
        "fileBasename": path.name,
        "fileBasenameNoExtension": path.stem,
        "fileExtname": path.suffix,
    }
    text = re.sub(rf"\{{\{{\s*({'|'.join(known)})\s*\}}\}}", lambda found: known[found[1]], text)

    def variable(found: re.Match) -> str:
        value = os.environ.get(found[1], found[2])
        if not value:
            raise ConfigError(f"the environment variable {found[1]} is not set, and {found[0]} has no default")
        return value

    return re.sub(r"\{\{['\"]?\s*\$(\w+)\s*:\s*(\S*?)\s*['\"]?\}\}", variable, text)
