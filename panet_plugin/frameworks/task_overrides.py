"""Overrides of a config's task, such as ``task.sigma=25``, in both frameworks, with everything that depends on it."""

from collections.abc import Mapping, MutableMapping
from typing import Any

from panet_plugin.tasks import Task

#: Names of the arguments for scale and channels in networks of both frameworks.
SCALES = ("scale", "upscale", "upscale_factor")
CHANNELS = ("in_channels", "out_channels", "num_in_ch", "num_out_ch")
#: Networks of this project, which have 3 channels by default.
OURS = ("PANet", "PAEDSR", "RNAN")


def task_overrides(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task parameters among overrides by dotted name."""
    return {key.removeprefix("task."): value for key, value in options.items() if key.startswith("task.")}


def follow_task(network: MutableMapping[str, Any], task: Task) -> None:
    """Set the scale and channels of a network, ``{"type": name, **arguments}``, to those of a task."""
    inner = network.get("arch")
    if isinstance(inner, MutableMapping):
        follow_task(inner, task)
        return
    network.update({name: task.scale for name in SCALES if name in network})
    network.update({name: task.channels for name in CHANNELS if name in network})
    if task.channels != 3 and network.get("type") in OURS:
        network["in_channels"] = task.channels


def name_of_run(config: str, changed: Mapping[str, Any]) -> str:
    """Return a name for the results of a config with these parameters of its task.

    Such as ``panet_dn50_sigma25``, ``panet_dn50_gray`` or ``panet_car10_no_luma_only``.
    """

    def word(name: str, value: Any) -> str:
        if isinstance(value, bool):
            return name if value else f"no_{name}"
        return f"{name}{'-'.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"

    return "_".join([config, *(word(name, value) for name, value in changed.items())])
