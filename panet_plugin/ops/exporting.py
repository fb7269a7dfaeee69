"""Support for exporting: sizes as values of the exported program, and kinds of loops."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: Kinds of loops: a ``scan`` for ``torch.export`` and ONNX, a scripted function for TorchScript traces.
LOOPS = ("scan", "script")

_loop: str | None = None


@contextmanager
def exporting(loop: str) -> Iterator[None]:
    """Return a context in which attention uses only operators that exporters support, for images of any size.

    Args:
        loop: ``"scan"`` inside :func:`torch.export.export`, ``"script"`` inside :func:`torch.jit.trace`.

    Raises:
        ValueError: If it is something else.
    """
    global _loop
    if loop not in LOOPS:
        raise ValueError(f"loop must be one of {', '.join(LOOPS)}, got {loop!r}")
    before, _loop = _loop, loop
    try:
        yield
    finally:
        _loop = before


def current_loop() -> str | None:
    """Return the kind of loop for the program being exported; None if nothing is exported."""
    return _loop


def is_exporting() -> bool:
    """Return whether PyTorch makes a program that may run on another device or be read by another runtime."""
    # PyTorch before 2.7 tells no difference.
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()


def scaled_side(side: Any, scale: float) -> Any:
    """Return ``floor(side * scale)`` as a value of the program being exported.

    It is computed with tensors in double precision, as in Python: exporters convert Python's floats to single
    precision, in which 0.7 * 90 gives 63, not 62.

    Args:
        side: A symbolic integer (``"scan"``) or a tensor (``"script"``).
        scale: Factor in (0, 1].
    """
    factor = torch.tensor(scale, dtype=torch.float64)
    if _loop == "script":
        return (torch.as_tensor(side).double() * factor).floor().long()
    scaled = (torch.scalar_tensor(side, dtype=torch.float64) * factor).floor().long().item()
    torch._check(scaled >= 1)
    torch._check(scaled <= side)
    return scaled
