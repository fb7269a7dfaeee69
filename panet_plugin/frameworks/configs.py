"""Configs of both frameworks as plain values: whoever wrote them, nothing in them is executed."""

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

#: Values that a config may hold, and how deep one may lie in others: those of honest ones are some hundred. A few
#: lines that name one value in another, and that in others, stand for billions.
MOST_VALUES, DEEPEST = 100_000, 50

_KINDS = {".py": (".py",), ".yml": (".yml", ".yaml"), ".yaml": (".yml", ".yaml")}


class NotPlain(str):
    """Stands for a value of a ``.py`` config that is no literal, such as the result of a call; the text says where."""


def read_plain(path: Path, *, _within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a config with its ``_base_`` files, which are merged as MMEngine does, without executing any of it.

    ``{{$VARIABLE:default}}`` and ``{{fileBasename}}`` and its like are understood as in MMEngine's configs,
    ``{{_base_.name}}`` and ``package::config`` are not.

    Args:
        path: A ``.yml`` or ``.yaml`` file, or a ``.py`` file of assignments; the bases are of the same kind.

    Returns:
        The values by name; of a ``.py`` file those that are not plain are :class:`NotPlain`.

    Raises:
        FileNotFoundError: If there is no such file.
        ConfigError: If a file holds anything else.
    """
    from mmengine.config import Config  # Whoever reads no config does without it.

    if (place := path.resolve()) in _within:
        raise ConfigError(f"{path}: it is a _base_ of itself")
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
            raise ConfigError(f"{path}: its _base_ files both have {', '.join(sorted(twice))}")
        inherited |= found
    for name, value in values.items():
        # What this would be merged into is not known.
        if isinstance(value, Mapping) and isinstance(inherited.get(name), NotPlain):
            values[name] = inherited[name]
    try:
        merged = Config(inherited)
        merged.merge_from_dict(values, allow_list_keys=False)
        return merged.to_dict()
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: it does not fit its _base_ ({error})") from error


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return a value of a config if it holds others by name, otherwise nothing."""
    return value if isinstance(value, Mapping) else {}


def positive_side(value: Any, scale: Any = 1) -> int | None:
    """Return a side in pixels of a config, divided by a scale; None if these are not positive integers."""
    if not all(isinstance(number, int) and number > 0 for number in (value, scale)):
        return None
    return value // scale or None


def override(config: Config, options: Mapping[str, Any], name: str | os.PathLike) -> None:
    """Change a config by dotted names.

    Args:
        config: Is changed.
        options: The new values.
        name: What errors call the config.

    Raises:
        ConfigError: If a name leads into a value that holds no others.
    """
    for key, value in options.items():
        try:
            config.merge_from_dict({key: _bounded(value)})
        except (AttributeError, ConfigError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
            shown = reprlib.repr(value)  # however deep
            raise ConfigError(f"{name}: it has no place for the override {key}={shown} ({error})") from error


def parse_yaml(text: str) -> Any:
    """Return what YAML holds, exactly as BasicSR and MMEngine read it, as long as it is plain values.

    Raises:
        ConfigError: If it is not; the message names the line.
    """
    try:
        found = yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}{error.problem}") from error
    # Of values such as `!!int one`, or what is nested too deeply.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(f"not YAML of plain values ({' '.join(str(error).split())})") from error
    return _bounded(found)


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, and tuples, which MMEngine writes.

    Not the one in C: that crashes where values are nested too deeply.
    """

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        """Refuse brackets nested too deeply at once: the scanner's time grows with the square of their depth."""
        if self.flow_level >= DEEPEST:
            raise yaml.scanner.ScannerError(None, None, f"more than {DEEPEST} deep in each other", self.get_mark())
        super().fetch_flow_collection_start(token)


def _tuple(loader: _PlainLoader, node: yaml.SequenceNode) -> tuple:
    return tuple(loader.construct_sequence(node))


def _refuse(loader: _PlainLoader, node: yaml.Node) -> None:
    tag = node.tag.replace("tag:yaml.org,2002:", "!!")
    problem = f"tag {tag!r} is not allowed: option files hold plain values"
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_PlainLoader.add_constructor(None, _refuse)


def assignments(text: str) -> dict[str, Any]:
    """Return what the text of a ``.py`` config assigns: literals, ``dict(...)`` and names assigned before.

    Raises:
        ConfigError: If it holds other statements, or is no Python.
    """
    try:
        body = ast.parse(text).body
    # Of NUL bytes, or what is nested too deeply.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"not Python of plain values ({type(error).__name__}: {error})") from error
    values: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a comment in quotes
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
    """Return a value; ConfigError if it holds too many others, counted as often as they are named."""
    level = [value]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise ConfigError(f"more than {MOST_VALUES} values, or more than {DEEPEST} deep in each other")
        within = (item.values() if isinstance(item, Mapping) else item for item in level)
        level = [
            other for items in within if isinstance(items, Iterable) and not isinstance(items, str) for other in items
        ]
    return value


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Evaluate an expression as :func:`ast.literal_eval`, and ``dict(...)`` and names.

    Raises:
        ValueError: If it is none of these.
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
    """Put values in the place of ``{{...}}``, as MMEngine does."""
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
            raise ConfigError(f"the environment has no {found[1]}, and {found[0]} sets no default")
        return value

    return re.sub(r"\{\{['\"]?\s*\$(\w+)\s*:\s*(\S*?)\s*['\"]?\}\}", variable, text)
