"""The table of implementations of pyramid attention, and the rule by which ``"auto"`` selects one.

Each is a module with a ``name``; with ``why_not(problem)``, which returns the reason why a problem is unsupported, or
None; and with ``forward(problem)``. That returns only the output if autograd differentiates it. Otherwise it returns
the output and the values for ``backward(grad, problem, saved)``, which computes the scores again, so that memory is
linear in the pixels. See :mod:`panet_plugin.ops.problem` for the types.
"""

import math
import os
from types import ModuleType
from typing import NamedTuple

import torch

from panet_plugin.ops import dense, fused, sdpa, stream, triton_backend
from panet_plugin.ops.problem import Problem

#: Implementations by name, in the order in which they are listed.
BACKENDS: dict[str, ModuleType] = {module.name: module for module in (dense, sdpa, stream, fused, triton_backend)}

#: Implementations that autograd differentiates.
DIRECT = tuple(name for name, module in BACKENDS.items() if not hasattr(module, "backward"))

#: Implementations among which ``"auto"`` selects when a compiled or exported program runs: they have their own backward
#: pass, and save values of the same shapes.
IN_PROGRAMS = ("fused", "stream")

#: Environment variable that makes ``"auto"`` select ``"triton"``, read in every call.
AUTO_TRITON = "PANET_PLUGIN_TRITON"


class Row(NamedTuple):
    """A row of the rule: an implementation for some problems.

    Attributes:
        implementation: Name of the implementation.
        device: Device type; None for all.
        dtype: Dtype of the tensors; None for all.
        window: Whether a window is required (True) or excluded (False); None for both.
        scores: Maximum size of all scores in GiB, inside the window or not.
        asked: Environment variable that must be 1, if any.
        basis: Basis of the row: where it was measured, or a model.
    """

    implementation: str
    device: str | None
    dtype: torch.dtype | None
    window: bool | None
    scores: float
    asked: str | None
    basis: str

    def fits(self, problem: Problem) -> bool:
        """Return whether the row applies to a problem."""
        query = problem.query
        return (
            self.device in (None, query.device.type)
            and self.dtype in (None, query.dtype)
            and self.window in (None, problem.window is not None)
            and (self.scores == math.inf or problem.scores * query.element_size() <= self.scores * 2**30)
            and (self.asked is None or _is_asked(self.asked))
        )


#: The first row that applies, and whose implementation supports the problem, is used.
RULE = (
    Row("fused", "cpu", torch.float32, None, math.inf, None, "measured on EPYC and Xeon, 48x48 to 512x512"),
    Row("triton", "cuda", torch.float32, None, math.inf, AUTO_TRITON, "not measured"),
    Row("dense", "cuda", None, None, 1.25, None, "a model of an H100, not measured"),
    Row("stream", None, None, None, math.inf, None, "on CPUs measured beside `dense`, 48x48 to 128x128; else a model"),
)


def choose(problem: Problem, among: tuple[str, ...] = tuple(BACKENDS)) -> ModuleType:
    """Return the implementation that ``"auto"`` selects for a problem.

    Args:
        problem: The problem.
        among: Names of the possible implementations, which include ``"stream"``.
    """
    rows = (row for row in RULE if row.implementation in among and row.fits(problem))
    return next(BACKENDS[row.implementation] for row in rows if not BACKENDS[row.implementation].why_not(problem))


def find(name: str, problem: Problem) -> ModuleType:
    """Return the implementation with a name.

    Raises:
        ValueError: If it does not support the problem.
    """
    backend = BACKENDS[name]
    if reason := backend.why_not(problem):
        raise ValueError(f"implementation {name!r}: {reason}; use 'auto' or 'stream'")
    return backend


@torch.compiler.assume_constant_result
def _is_asked(variable: str) -> bool:
    return os.environ.get(variable) == "1"
