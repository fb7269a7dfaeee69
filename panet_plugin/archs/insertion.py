"""Inserting pyramid attention into any network: after, before or instead of one of its modules."""

import functools
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from panet_plugin.archs.insertion_points import (
    BLOCK,
    DEFAULT_INPUT,
    Calls,
    InsertionPoint,
    feature_shape,
    record_calls,
)
from panet_plugin.archs.pyramid_attention import PyramidAttention

#: Maximum number of places listed in an error.
_LISTED = 30


def insert_pyramid_attention(
    network: nn.Module,
    at: str | Sequence[str],
    where: str = "after",
    *,
    input_shape: Sequence[int] = DEFAULT_INPUT,
    **attention: Any,
) -> nn.Module:
    """Insert a pyramid attention block at each of the given modules of a network (paper, section 3.4).

    The network keeps its class, its modules and the names of its weights; the weights of a block are stored under its
    module as ``pyramid_attention``. A state dict without them can be loaded strictly: the blocks keep their weights,
    with a warning. If a module is called several times, or has several paths, the block is part of every call.

    Args:
        network: The network, which is modified in place.
        at: Dotted path of a module, such as ``"body.7"``, or several.
        where: The block receives the module's output (``"after"``) or its first argument (``"before"``), or replaces
            the module (``"replace"``), whose weights are then dropped, also when state dicts are loaded.
        input_shape: Shape of an input with which the network is run once to find the channels.
        **attention: Arguments of :class:`PyramidAttention` other than ``channels``; with ``residual_init="zero"``, the
            blocks start as the identity.

    Returns:
        ``network``.

    Raises:
        TypeError: If :class:`PyramidAttention` has no such argument.
        ValueError: If there is no such module, or it has neither features of shape ``(N, C, H, W)`` nor tokens
            ``(N, L, C)`` with a known grid (the message lists possible places), or if the network does not accept the
            input.
    """
    paths = [at] if isinstance(at, str) else list(at)
    modules = {path: _find(network, path) for path in paths}
    if not paths or len(set(modules.values())) < len(paths):
        raise ValueError(f"at must be the path of a module or distinct paths, got {at!r}")
    if where == "replace" and (nested := [p for p in paths if any(p.startswith(f"{other}.") for other in paths)]):
        raise ValueError(f"{', '.join(nested)}: inside another module that is replaced")
    calls = record_calls(network, input_shape)
    by_module = {seen.module: seen for seen in calls.values()}
    # All blocks are made before any is inserted, so that an error leaves the network unchanged.
    blocks = {}
    for path, module in modules.items():
        found = by_module[module].at(path, where)
        if not isinstance(found, InsertionPoint):
            raise ValueError(f"{path}: {found}. Possible places: {_places(calls, where, path)}")
        like = next((p for p in (*module.parameters(), *network.parameters()) if p.is_floating_point()), None)
        block = PyramidAttention(found.channels, **attention).train(module.training)
        blocks[module] = block if like is None else block.to(like.device, like.dtype)
    for module, block in blocks.items():
        if where == "replace":
            _replace(network, module, Replacement(block, module))
        else:
            module.__class__ = _attended_class(type(module), where)  # type: ignore[arg-type]
            module.add_module(BLOCK, block)
    return network


def _find(network: nn.Module, path: str) -> nn.Module:
    try:
        module = network.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"{type(network).__name__} has no module {path!r}: {error}") from error
    if module is network:
        raise ValueError(f"expected the path of a module inside {type(network).__name__}, got {path!r}")
    return module


def _places(calls: Mapping[str, Calls], where: str, path: str) -> str:
    """List the possible places, those nearest to a path first."""
    found = [point for name, seen in calls.items() if isinstance(point := seen.at(name, where), InsertionPoint)]
    found.sort(key=lambda point: -_shared(point.path, path))
    more = f", and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (", ".join(point.path for point in found[:_LISTED]) or "none") + more


def _shared(path: str, other: str) -> int:
    """Count the leading modules that two paths have in common."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(path.split("."), other.split("."), strict=False))))


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(network.modules()):
        for name in [name for name, child in parent._modules.items() if child is old]:
            parent.add_module(name, new)


def _attend(block: nn.Module, x: Tensor, context: tuple) -> Tensor:
    """Apply a block to features ``(N, C, H, W)`` or tokens ``(N, L, C)``."""
    if x.ndim == 4:
        return block(x)
    shape = feature_shape(x, context)
    if shape is None:
        raise ValueError(f"expected features (N, C, H, W) or tokens with a known grid, got shape {tuple(x.shape)}")
    return block(x.transpose(1, 2).reshape(shape)).flatten(2).transpose(1, 2)


class Replacement(nn.Module):
    """Pyramid attention that replaces another module: it accepts its arguments and ignores its weights.

    Args:
        block: The attention.
        replaced: The replaced module.
    """

    pyramid_attention: PyramidAttention

    def __init__(self, block: PyramidAttention, replaced: nn.Module) -> None:
        super().__init__()
        self.replaced = tuple(replaced.state_dict())
        self.add_module(BLOCK, block)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Attend within ``x``; for tokens, the grid is taken from the other arguments."""
        return _attend(self.pyramid_attention, x, (x, *args, *kwargs.values()))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in self.replaced:
            state_dict.pop(prefix + name, None)
        _keep_block(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _keep_block(module: nn.Module, state_dict: dict[str, Tensor], prefix: str) -> None:
    """Keep the block's weights if a state dict does not contain them."""
    prefix = f"{prefix}{BLOCK}."
    if any(key.startswith(prefix) for key in state_dict):
        return
    warnings.warn(f"the state dict has no weights {prefix}*: those of the network are kept", stacklevel=2)
    state_dict.update(getattr(module, BLOCK).state_dict(prefix=prefix))


class _Attended(nn.Module):
    """Mixin that is put before a module's class to add a block to the module.

    The module object is kept, so that its name, its children and references to it stay valid.
    """

    _base: type[nn.Module]
    _where: str
    pyramid_attention: PyramidAttention

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        context = (*args, *kwargs.values())
        if self._where == "before":
            return super().forward(_attend(self.pyramid_attention, args[0], context), *args[1:], **kwargs)
        return _attend(self.pyramid_attention, super().forward(*args, **kwargs), context)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        _keep_block(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __reduce_ex__(self, protocol: Any) -> tuple:
        # pickle looks up classes by name, but this one is created on demand.
        return _new_attended, (self._base, self._where), self.__dict__.copy()


class _AttendedSequence(_Attended):
    """The same for ``nn.Sequential``, which runs all children in turn: the block must not be one of them."""

    def _steps(self) -> list[nn.Module]:
        return [module for name, module in self._modules.items() if name != BLOCK and module is not None]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._steps())

    def __len__(self) -> int:
        return len(self._modules) - 1

    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(*self._steps()[index])
        return self._steps()[index]


# mypy mistakes the method __hash__ of modules for that of their class, and considers the class unhashable.
@functools.cache
def _attended_class(base: type[nn.Module], where: str) -> type[nn.Module]:
    extension = _AttendedSequence if issubclass(base, nn.Sequential) else _Attended
    name = f"{base.__name__}WithPyramidAttention"
    attributes = {"_base": base, "_where": where, "__module__": __name__, "__doc__": base.__doc__}
    return types.new_class(name, (extension, base), exec_body=lambda namespace: namespace.update(attributes))


def _new_attended(base: type[nn.Module], where: str) -> nn.Module:
    created = _attended_class(base, where)  # type: ignore[arg-type]
    return created.__new__(created)
