"""Placeholders: modules can import missing packages, and fail only when they use them."""

import importlib
import sys
from abc import ABCMeta
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def importable(needs: Mapping[str, Iterable[str]]) -> bool:
    """Return whether every name can be imported from its module.

    Args:
        needs: Names by module, ``{"package.module": ("Name", ...)}``.

    Returns:
        False if a module or a name is missing, or an import raises any error.
    """
    try:
        return all(hasattr(importlib.import_module(module), name) for module, names in needs.items() for name in names)
    except Exception:  # an incompatible package may raise any error
        return False


@contextmanager
def placeholders(packages: Iterable[str], called_at_import: Mapping[str, Any]) -> Iterator[None]:
    """Provide placeholder modules for packages inside the context.

    Already imported packages with these names are hidden, and restored afterward. No placeholder stays in
    ``sys.modules``; modules imported meanwhile keep theirs, and using one raises ImportError.

    Args:
        packages: Dotted names; their submodules are included.
        called_at_import: Replacements for names that modules call while they are imported.
    """
    packages = tuple(packages)
    hidden = _remove_modules(packages)
    finder = _Finder(packages, called_at_import)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _remove_modules(packages)
        sys.modules.update(hidden)


def _remove_modules(packages: tuple[str, ...]) -> dict[str, ModuleType]:
    """Remove packages from ``sys.modules`` and return them."""
    removed = {name: sys.modules.pop(name) for name in list(sys.modules) if _belongs(name, packages)}
    for name, module in removed.items():
        parent, _, child = name.rpartition(".")
        # The import system also binds a submodule in its parent, which may be a real package.
        if module and vars(sys.modules.get(parent, object)).get(child) is module:
            delattr(sys.modules[parent], child)
    return removed


def _belongs(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


class _Absent(ABCMeta):
    """Metaclass of placeholders: they can be used as base classes and annotations, but not called or accessed.

    Derived from ABCMeta so that a class may inherit from a placeholder and from a module with abstract methods.
    """

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "_package" in vars(cls):
            raise cls._error()
        # A class derived from a placeholder: decorators access its attributes while it is created.
        raise AttributeError(f"{cls.__name__} has no attribute {name!r}: {cls._error()}")

    def __dir__(cls) -> list[str]:
        return []

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise cls._error()

    def _error(cls) -> ImportError:
        origin = next(base for base in cls.__mro__ if "_package" in vars(base))
        package = vars(origin)["_package"].partition(".")[0]
        return ImportError(
            f"{cls.__name__} requires {origin.__module__}.{origin.__name__}, but the package '{package}' "
            "is not installed, or its version or build does not provide it",
            name=package,
        )


class _PlaceholderModule(ModuleType):
    """A module with placeholders for all names."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        loader: _Loader = vars(self)["__spec__"].loader
        if name in loader.called_at_import:
            return loader.called_at_import[name]
        return _Absent(name, (), {"__module__": self.__name__, "_package": loader.package})

    def __dir__(self) -> list[str]:
        return []


class _Finder(MetaPathFinder):
    def __init__(self, packages: tuple[str, ...], called_at_import: Mapping[str, Any]) -> None:
        self.packages = packages
        self.called_at_import = called_at_import

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        for package in self.packages:
            if _belongs(fullname, (package,)):
                return ModuleSpec(fullname, _Loader(package, self.called_at_import), is_package=True)
        return None


class _Loader(Loader):
    def __init__(self, package: str, called_at_import: Mapping[str, Any]) -> None:
        self.package = package
        self.called_at_import = called_at_import

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _PlaceholderModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass
