"""The table of bridges. A bridge is a row here and a package beside this module, loaded when it is needed.

The package ``panet_plugin.frameworks.NAME`` registers our classes with its framework when it is imported. It has the
modules

- ``archs``: ``build_arch(arch)`` builds a network from ``{"type": name, **arguments}``, ``initialize(network)`` sets
  the weights that a training starts with, ``registered_names()`` returns all names that may stand for ``type``, and
  ``own_archs()`` those of the framework's own networks;
- ``describe``: ``describe(values, source)`` returns the :class:`Description` of a config;
- ``run``: ``train`` and ``test``, with the arguments of the commands.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from torch import nn

from panet_plugin.errors import ConfigError
from panet_plugin.frameworks.configs import read_plain

__all__ = [
    "ADVICE",
    "BRIDGES",
    "SUFFIXES",
    "Bridge",
    "Description",
    "bridge_of",
    "bridge_of_config",
    "framework_of",
    "unregistered",
]

#: What to do about a checkpoint that does not describe its network.
ADVICE = "give the config that it was trained with"


class Description(NamedTuple):
    """A network, ``{"type": name, **arguments}``, and if a config says it, what it is trained for and on.

    Attributes:
        network: Name and arguments.
        task: Parameters of :func:`panet_plugin.tasks.make_task`; not checked.
        patch: Side in pixels of the patches of the input.
    """

    network: dict[str, Any]
    task: Any = None
    patch: int | None = None


@dataclass(frozen=True)
class Bridge:
    """The bridge to a framework.

    Attributes:
        name: Of the package.
        title: Of the framework, for people.
        marks: Names at the top of a config by which it is one of this framework.
        suffixes: Of files that are its configs if their content does not tell.
    """

    name: str
    title: str
    marks: tuple[str, ...]
    suffixes: tuple[str, ...] = ()

    def load(self, module: str) -> ModuleType:
        """Import a module of the bridge, and with it the framework.

        Raises:
            ImportError: If the framework is not installed.
        """
        try:
            return importlib.import_module(f"panet_plugin.frameworks.{self.name}.{module}")
        except ModuleNotFoundError as error:
            raise ImportError(f"{self.title} is needed, but not everything of it is installed: {error}") from error

    def build_arch(self, arch: Mapping[str, Any]) -> nn.Module:
        """Build a network from ``{"type": name, **arguments}``, with the weights that a training starts with.

        Raises:
            ImportError: If the framework is not installed.
            KeyError: If there is no such network.
        """
        archs = self.load("archs")
        network = archs.build_arch(arch)
        archs.initialize(network)
        return network

    def describe(self, values: Mapping[str, Any], source: Path) -> Description:
        """Return the network of a config.

        Args:
            values: Of the config.
            source: Its file, or the checkpoint that holds it, for errors.

        Raises:
            CheckpointError: If the config describes no network that takes images in [0, 1].
            ImportError: If the framework is not installed.
        """
        return self.load("describe").describe(values, source)


#: The bridges by name. Where the marks of several are in a config, the first one counts.
BRIDGES = {
    bridge.name: bridge
    for bridge in (
        Bridge("mmagic", "MMagic", ("model",), (".py",)),
        Bridge("basicsr", "BasicSR", ("network_g",), (".yml", ".yaml")),
    )
}


#: Suffixes of configs, and the title of the framework that one is taken for if its content does not tell.
SUFFIXES = {suffix: bridge.title for bridge in BRIDGES.values() for suffix in bridge.suffixes}


def bridge_of(values: Mapping[str, Any], suffix: str) -> Bridge | None:
    """Return the bridge to the framework of a config, by its content, else by the suffix of its file."""
    by_content = (bridge for bridge in BRIDGES.values() if all(mark in values for mark in bridge.marks))
    by_suffix = (bridge for bridge in BRIDGES.values() if suffix in bridge.suffixes)
    return next(by_content, None) or next(by_suffix, None)


def bridge_of_config(config: Path, name: str | None = None) -> Bridge:
    """Return the bridge to the framework of a config file; nothing in it is executed.

    Args:
        config: The file.
        name: Of the bridge, whatever the config looks like.

    Raises:
        FileNotFoundError: If there is no such file, or none that could be a config.
    """
    if not config.is_file() or config.suffix not in SUFFIXES:
        kinds = ", ".join(f"{suffix} ({title})" for suffix, title in SUFFIXES.items())
        raise FileNotFoundError(f"{config}: expected an existing config: {kinds}")
    if name is not None:
        return BRIDGES[name]
    try:
        values = read_plain(config)
    except ConfigError:  # that of a program, which its framework may run, or a fault, of which that one tells
        values = {}
    bridge = bridge_of(values, config.suffix)
    assert bridge is not None  # the suffix is one of them
    return bridge


def framework_of(config: Path, name: str | None = None) -> ModuleType:
    """Return the module with ``train`` and ``test`` that runs a config; see :func:`bridge_of_config`.

    Raises:
        FileNotFoundError: If there is no such file, or none that could be a config.
        ImportError: If the framework is not installed.
    """
    return bridge_of_config(config, name).load("run")


def unregistered(network: Mapping[str, Any], name: str) -> str:
    """Return the names within a network that stand for nothing registered, with commas.

    MMEngine imports and calls whatever a name stands for that is not registered.

    Args:
        network: ``{"type": name, **arguments}`` with the networks and layers in it.
        name: Of the bridge whose names are looked up first.

    Raises:
        ImportError: If that framework is not installed; others may be absent.
    """
    unknown = set(_types(network))
    # The others come last: they take seconds to import, and only networks within networks need them.
    for bridge in sorted(BRIDGES.values(), key=lambda bridge: bridge.name != name):
        if unknown:
            try:
                unknown -= bridge.load("archs").registered_names()
            except ImportError:
                if bridge.name == name:
                    raise
    return ", ".join(sorted(unknown))


def _types(value: Any) -> Iterator[str]:
    """Yield every name that a registry would look up, or take its classes from."""
    if isinstance(value, Mapping):
        yield from (str(value[key]) for key in ("type", "_scope_") if key in value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _types(item)
