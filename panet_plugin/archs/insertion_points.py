"""Finding the places in a network where a block for features can be inserted, by running the network once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs.pyramid_attention import PyramidAttention

#: Name of the block among the children of its module.
BLOCK = "pyramid_attention"

#: Positions of a block relative to a module.
PLACES = ("after", "before", "replace")

#: Default shape of the input for running a network.
DEFAULT_INPUT = (1, 3, 48, 48)


@dataclass(frozen=True)
class InsertionPoint:
    """A module of a network, and the features that a block there would receive.

    Attributes:
        path: Dotted path of the module.
        type: Name of its class.
        shape: Shape of its output (of its input for a block before it or instead of it): ``(N, C, H, W)``, or
            ``(N, L, C)`` for tokens.
        channels: Channels of these features.
    """

    path: str
    type: str
    shape: tuple[int, ...]
    channels: int


class InsertionPoints(tuple[InsertionPoint, ...]):
    """Insertion points of a network; printed as a table of path, type and shape."""

    def __str__(self) -> str:
        rows = [(point.path, point.type, str(point.shape)) for point in self]
        path, type_ = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
        return "\n".join(f"{row[0]:<{path}}  {row[1]:<{type_}}  {row[2]}" for row in rows)

    __repr__ = __str__


def list_insertion_points(
    network: nn.Module, input_shape: Sequence[int] = DEFAULT_INPUT, where: str = "after"
) -> InsertionPoints:
    """Find the modules of a network after, before or instead of which pyramid attention can be inserted.

    The network runs once, in evaluation mode and without gradients; it is not modified.

    Args:
        network: Takes one tensor.
        input_shape: Shape of that tensor, usually ``(N, C, H, W)`` in pixels.
        where: ``"after"``, ``"before"`` or ``"replace"``.

    Returns:
        The points in the order of ``network.named_modules()``; ``print`` shows path, type and shape.

    Raises:
        ValueError: If the network does not accept such an input, or ``where`` is invalid.
    """
    found = (calls.at(path, where) for path, calls in record_calls(network, input_shape).items())
    return InsertionPoints(point for point in found if isinstance(point, InsertionPoint))


@dataclass
class Calls:
    """Inputs and outputs of a module during the run."""

    module: nn.Module
    batch: int | None
    inside: bool
    before: list[Any] = field(default_factory=list)
    after: list[Any] = field(default_factory=list)

    def at(self, path: str, where: str) -> InsertionPoint | str:
        """Return the insertion point at this module, or the reason why there is none."""
        if where not in PLACES:
            raise ValueError(f"where must be one of {', '.join(PLACES)}, got {where!r}")
        if self.inside:
            return "it is part of a pyramid attention block"
        if hasattr(self.module, BLOCK):
            return "it already has a pyramid attention block: choose a module beside or inside it"
        if not self.after:
            return "it is never called"
        ends = {"after": [("output", self.after)], "before": [("input", self.before)]}.get(
            where, [("input", self.before), ("output", self.after)]
        )
        for name, seen in ends:
            for value in seen:
                if not isinstance(value, _Seen):
                    return f"its {name} is {value}"
                if value.features is None:
                    return (
                        f"its {name} has shape {value.shape}, neither (N, C, H, W) nor tokens (N, L, C) with a "
                        "grid among its arguments"
                    )
                if self.batch is not None and value.shape[0] != self.batch:
                    return f"its {name} has shape {value.shape}: expected the batch size {self.batch} of the input"
            if len({value.features[1] for value in seen}) > 1:
                return f"the channels of its {name} differ between calls"
        if where == "replace" and [value.shape for value in self.before] != [value.shape for value in self.after]:
            return f"its output of shape {self.after[0].shape} differs from its input of shape {self.before[0].shape}"
        value = ends[0][1][0]
        return InsertionPoint(path, type(self.module).__name__, value.shape, value.features[1])


@dataclass(frozen=True)
class _Seen:
    """An input or output tensor of a module, and its shape as features."""

    shape: tuple[int, ...]
    features: tuple[int, int, int, int] | None


def record_calls(network: nn.Module, input_shape: Sequence[int]) -> dict[str, Calls]:
    """Run a network on an input with a shape, and return the calls of each module by path."""
    device, dtype = _device_and_dtype(network)
    batch = input_shape[0] if len(input_shape) == 4 else None
    parts = {
        part for block in network.modules() if isinstance(block, PyramidAttention) for part in [*block.modules()][1:]
    }
    calls = {path: Calls(module, batch, module in parts) for path, module in network.named_modules() if path}

    def watch(seen: Calls) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> None:
            context = (*args, *kwargs.values())
            seen.before.append(_see(args[0], context) if args else "not a positional argument")
            seen.after.append(_see(output, context))

        return hook

    handles = [seen.module.register_forward_hook(watch(seen), with_kwargs=True) for seen in calls.values()]
    try:
        with _unchanged(network, device), torch.no_grad():
            network(torch.rand(*input_shape, device=device).to(dtype))
    except Exception as error:
        # Networks may raise any error for unsuitable inputs.
        raise ValueError(
            f"{type(network).__name__} does not accept an input of shape {tuple(input_shape)} "
            f"({type(error).__name__}: {error}); set input_shape to a shape that it accepts"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


def feature_shape(x: Tensor, context: Iterable[Any]) -> tuple[int, int, int, int] | None:
    """Return the shape ``(N, C, H, W)`` of features, or None if they have none.

    Args:
        x: ``(N, C, H, W)``, or tokens ``(N, L, C)``, row by row.
        context: The arguments of the module that takes or returns ``x``. The grid of tokens is a pair ``(H, W)``
            among them, as in SwinIR, or the size of the ``(N, C, H, W)`` features that became tokens.
    """
    if x.ndim == 4:
        count, channels, height, width = x.shape
        return count, channels, height, width
    if x.ndim != 3:
        return None
    count, length, channels = x.shape
    for value in context:
        if isinstance(value, Tensor):
            grid = tuple(value.shape[2:]) if value.ndim == 4 else ()
        else:
            grid = tuple(value) if isinstance(value, list | tuple) else ()
        if len(grid) == 2 and all(isinstance(side, int) for side in grid) and grid[0] * grid[1] == length:
            return count, channels, *grid
    return None


def _see(value: Any, context: tuple) -> _Seen | str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}, expected a tensor"
    if not value.is_floating_point():
        return f"of type {value.dtype}"
    return _Seen(tuple(value.shape), feature_shape(value, context))


def _device_and_dtype(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.get_default_device(), torch.get_default_dtype()


@contextmanager
def _unchanged(network: nn.Module, device: torch.device) -> Iterator[None]:
    """Run in evaluation mode; restore modes, buffers and the state of random generators afterward."""
    training = {module: module.training for module in network.modules()}
    buffers = [
        (module._buffers, name, buffer, buffer._version, buffer.clone())
        for module in training
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        # Not with eval(), which networks override.
        for module in training:
            module.training = False
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for owner, name, buffer, version, value in buffers:
            owner[name] = buffer
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)
