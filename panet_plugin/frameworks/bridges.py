"""The table of bridges. A bridge is a row here and a package beside this module, which is imported on first use.

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

#: Advice for a checkpoint that does not identify its network.
ADVICE = "pass the config with which it was trained"


class Description(NamedTuple):
    """A network, ``{"type": name, **arguments}``, with its task and training patches if the config records them.

    Attributes:
        network: Name and arguments.
        task: Parameters of :func:`panet_plugin.tasks.make_task`; not checked.
        patch: Side in pixels of the input's training patches.
    """

    network: dict[str, Any]
    task: Any = None
    patch: int | None = None


@dataclass(frozen=True)
class Bridge:
    """The bridge to a framework.

    Attributes:
        name: Name of the package.
        title: Name of the framework.
        marks: Top-level names by which a config of this framework is recognized.
        suffixes: Suffixes of its configs, used if the content is not recognized.
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
            raise ImportError(f"{self.title} is not installed, or only partly: {error}") from error

    def build_arch(self, arch: Mapping[str, Any]) -> nn.Module:
        """Build a network from ``{"type": name, **arguments}`` with the framework's initial weights.

        Raises:
            ImportError: If the framework is not installed.
            KeyError: If there is no such network.
        """
        archs = self.load("archs")
        network = archs.build_arch(arch)
        archs.initialize(network)
        return network

    def describe(self, values: Mapping[str, Any], source: Path) -> Description:
        """Return the description of a config's network.

        Args:
            values: Values of the config.
            source: Its file, or the checkpoint that contains it, for errors.

        Raises:
            CheckpointError: If the config does not describe a network for images in [0, 1].
            ImportError: If the framework is not installed.
        """
        return self.load("describe").describe(values, source)


#: Bridges by name. If a config has the marks of several, the first one applies.
BRIDGES = {
    bridge.name: bridge
    for bridge in (
        Bridge("mmagic", "MMagic", ("model",), (".py",)),
        Bridge("basicsr", "BasicSR", ("network_g",), (".yml", ".yaml")),
    )
}


#: Frameworks by the suffixes of their configs, used if the content is not recognized.
SUFFIXES = {suffix: bridge.title for bridge in BRIDGES.values() for suffix in bridge.suffixes}


def bridge_of(values: Mapping[str, Any], suffix: str) -> Bridge | None:
    """Return the bridge to the framework of a config, by its content, or else by the suffix of its file."""
    by_content = (bridge for bridge in BRIDGES.values() if all(mark in values for mark in bridge.marks))
    by_suffix = (bridge for bridge in BRIDGES.values() if suffix in bridge.suffixes)
    return next(by_content, None) or next(by_suffix, None)


def bridge_of_config(config: Path, name: str | None = None) -> Bridge:
    """Return the bridge to the framework of a config file; nothing in it is executed.

    Args:
        config: The file.
        name: Name of the bridge; overrides detection.

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
    except ConfigError:  # code, which its framework may run, or an error, which its framework reports
        values = {}
    bridge = bridge_of(values, config.suffix)
    assert bridge is not None  # the suffix was checked
    return bridge


def framework_of(config: Path, name: str | None = None) -> ModuleType:
    """Return the module with ``train`` and ``test`` that runs a config; see :func:`bridge_of_config`.

    Raises:
        FileNotFoundError: If there is no such file, or none that could be a config.
        ImportError: If the framework is not installed.
    """
    return bridge_of_config(config, name).load("run")


def unregistered(network: Mapping[str, Any], name: str) -> str:
    """Return the unregistered names in a network, separated by commas.

    MMEngine would import and call unregistered names.

    Args:
        network: ``{"type": name, **arguments}``, with nested networks and layers.
        name: Name of the bridge to look up names in first.

    Raises:
        ImportError: If that framework is not installed; others may be missing.
    """
    unknown = set(_types(network))
    # The others come last: importing them takes seconds, and only nested networks need them.
    for bridge in sorted(BRIDGES.values(), key=lambda bridge: bridge.name != name):
        if unknown:
            try:
                unknown -= bridge.load("archs").registered_names()
            except ImportError:
                if bridge.name == name:
                    raise
    return ", ".join(sorted(unknown))


def _types(value: Any) -> Iterator[str]:
    """Yield every name that a registry would look up, including registries themselves."""
    if isinstance(value, Mapping):
        yield from (str(value[key]) for key in ("type", "_scope_") if key in value)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _types(item)
