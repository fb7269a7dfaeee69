"""While a network is exported: sizes as numbers of the exported program, and which kind of loop it is to have."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: Kinds of loops: a ``scan`` for ``torch.export`` and ONNX, a scripted function for TorchScript's traces.
LOOPS = ("scan", "script")

_loop: str | None = None


@contextmanager
def exporting(loop: str) -> Iterator[None]:
    """Return a context in which attention is spelled out in operators that exporters know, for images of any size.

    Args:
        loop: ``"scan"`` inside :func:`torch.export.export`, ``"script"`` inside :func:`torch.jit.trace`.

    Raises:
        ValueError: If it is neither.
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
    """Return the kind of loop that the program being exported is to have; None if nothing is exported."""
    return _loop


def is_exporting() -> bool:
    """Return whether PyTorch makes a program that may run on another device or be read by another runtime."""
    # PyTorch before 2.7 tells no difference.
    return getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)()


def scaled_side(side: Any, scale: float) -> Any:
    """Return ``floor(side * scale)`` as a number of the program that is being exported.

    It is computed by tensors in double precision, as Python does: exporters turn Python's floats into single precision,
    of which 0.7 * 90 is 63, not 62.

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
