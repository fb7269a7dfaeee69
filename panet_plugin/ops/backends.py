"""All implementations of pyramid attention in one table, and the rule by which ``"auto"`` chooses.

Each is a module with a ``name``, with ``why_not(problem)``, which returns why it cannot do a problem or None, and with
``forward(problem)``. That returns the output alone if autograd is to differentiate it. Otherwise it returns the output
and what ``backward(grad, problem, saved)`` needs of it, which computes the scores again: memory is linear in the pixels
then. See :mod:`panet_plugin.ops.problem` for the types.
"""

import math
import os
from types import ModuleType
from typing import NamedTuple

import torch

from panet_plugin.ops import dense, fused, sdpa, stream, triton_backend
from panet_plugin.ops.problem import Problem

#: By their names, in the order in which they are shown.
BACKENDS: dict[str, ModuleType] = {module.name: module for module in (dense, sdpa, stream, fused, triton_backend)}

#: Those that autograd differentiates.
DIRECT = tuple(name for name, module in BACKENDS.items() if not hasattr(module, "backward"))

#: What ``"auto"`` may be in a program, which is asked when it runs: autograd has no part in these, and what they save
#: is of the same shape.
IN_PROGRAMS = ("fused", "stream")

#: The environment variable by which ``"auto"`` takes ``"triton"``, read in every call.
AUTO_TRITON = "PANET_PLUGIN_TRITON"


class Row(NamedTuple):
    """A row of the rule: what to take for some problems.

    Attributes:
        implementation: What it is.
        device: Type of the device; None for all.
        dtype: Of the tensors; None for all.
        window: Whether there has to be one; None if that makes no difference.
        scores: Most GiB that all scores, seen or not, may take.
        asked: Environment variable that has to be 1, if any.
        basis: Where that was measured, or what else speaks for it.
    """

    implementation: str
    device: str | None
    dtype: torch.dtype | None
    window: bool | None
    scores: float
    asked: str | None
    basis: str

    def fits(self, problem: Problem) -> bool:
        """Return whether the row is about a problem."""
        query = problem.query
        return (
            self.device in (None, query.device.type)
            and self.dtype in (None, query.dtype)
            and self.window in (None, problem.window is not None)
            and (self.scores == math.inf or problem.scores * query.element_size() <= self.scores * 2**30)
            and (self.asked is None or _is_asked(self.asked))
        )


#: The first row that fits, and whose implementation can do the problem, counts.
RULE = (
    Row("fused", "cpu", torch.float32, None, math.inf, None, "measured on EPYC and Xeon, 48x48 to 512x512"),
    Row("triton", "cuda", torch.float32, None, math.inf, AUTO_TRITON, "not measured"),
    Row("dense", "cuda", None, None, 1.25, None, "a model of an H100, not measured"),
    Row("stream", None, None, None, math.inf, None, "on CPUs measured beside `dense`, 48x48 to 128x128; else a model"),
)


def choose(problem: Problem, among: tuple[str, ...] = tuple(BACKENDS)) -> ModuleType:
    """Return the implementation that ``"auto"`` is for a problem.

    Args:
        problem: What is to be computed.
        among: Names of those that are possible, with ``"stream"``.
    """
    rows = (row for row in RULE if row.implementation in among and row.fits(problem))
    return next(BACKENDS[row.implementation] for row in rows if not BACKENDS[row.implementation].why_not(problem))


def find(name: str, problem: Problem) -> ModuleType:
    """Return the implementation of a name.

    Raises:
        ValueError: If it cannot do the problem.
    """
    backend = BACKENDS[name]
    if reason := backend.why_not(problem):
        raise ValueError(f"implementation {name!r}: {reason}; use 'auto' or 'stream'")
    return backend


@torch.compiler.assume_constant_result
def _is_asked(variable: str) -> bool:
    return os.environ.get(variable) == "1"
