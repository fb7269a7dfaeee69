"""Pyramid attention by a C++ kernel: 3x3 patches, soft matching, float32 on a CPU; no autograd inside."""

import ctypes
import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from panet_plugin.ops.problem import Gradients, Problem, Saved
from panet_plugin.ops.window import Visible

name = "fused"

_log = logging.getLogger(__name__)


def is_available() -> bool:
    """Return whether the kernel can be used; the first call builds or loads it, and logs one line if it cannot."""
    return _library() is not None


def has_bfloat16() -> bool:
    """Return whether the kernel can be used and can multiply in bfloat16.

    This requires AVX512_BF16. The processor's matrix unit (AMX) is used if there is one.
    """
    library = _library()
    return library is not None and bool(library.panet_has_bfloat16())


def why_not(problem: Problem) -> str | None:
    """Return why the problem is unsupported, or None."""
    if problem.query.device.type != "cpu":
        return f"it requires CPU tensors, got {problem.query.device}"
    if reason := problem.why_not_published():
        return f"it supports {reason}"
    return None if is_available() else "the C++ kernel is not available; see the log"


def forward(problem: Problem) -> tuple[Tensor, Saved]:
    """Compute pyramid attention ``(N, D, H, W)`` in memory linear in the pixels, and the values for its backward pass.

    With ``products="bf16"``, operands of products are rounded to bfloat16 if :func:`has_bfloat16`; everything else is
    computed in float32.

    Raises:
        ValueError: If a tensor is not float32 on the CPU, or shapes do not match.
        RuntimeError: If the kernel is not available.
        MemoryError: If memory ran out.
    """
    call = _Call(problem)
    batch, _, height, width = problem.query.shape
    output = torch.zeros(batch, problem.values[0].shape[1], height, width)
    log_sums = torch.zeros(batch, height, width)
    call("panet_forward", output.data_ptr(), log_sums.data_ptr())
    return output, Saved(log_sums)


def backward(grad: Tensor, problem: Problem, saved: Saved) -> Gradients:
    """Compute the gradients, treating the scales as independent of the keys.

    Args:
        grad: Gradient of the output, ``(N, D, H, W)``.
        problem: As given to :func:`forward`.
        saved: From :func:`forward`.

    Raises:
        ValueError: If a tensor is not float32 on the CPU or sizes disagree.
        RuntimeError: If the kernel is not available.
        MemoryError: If memory ran out.
    """
    call = _Call(problem)
    query = problem.query
    expected = (query.shape[0], problem.values[0].shape[1], *query.shape[2:])
    dquery = torch.zeros(query.shape)
    dkeys, dscales, dvalues = (
        [torch.zeros(t.shape) for t in level] for level in (problem.keys, problem.scales, problem.values)
    )
    call(
        "panet_backward",
        call.address(grad, expected),
        call.address(saved.normalizer, (query.shape[0], *query.shape[2:])),
        dquery.data_ptr(),
        *(_pointers([t.data_ptr() for t in level]) for level in (dkeys, dscales, dvalues)),
    )
    return dquery, dkeys, dscales, dvalues


class _Call:
    """The shared arguments of both entry points, and the contiguous copies that must outlive the call."""

    def __init__(self, problem: Problem):
        self._kept: list[Tensor] = []
        batch, channels, height, width = problem.query.shape
        depth = problem.values[0].shape[1]
        sizes = problem.sizes
        self._arguments = (
            *map(ctypes.c_int64, (batch, channels, depth, height, width, len(sizes))),
            (ctypes.c_int64 * len(sizes))(*(h for h, _ in sizes)),
            (ctypes.c_int64 * len(sizes))(*(w for _, w in sizes)),
            self._tables(problem.visible),
            ctypes.c_int(torch.get_num_threads()),
            ctypes.c_int(problem.products == "bf16"),
            ctypes.c_void_p(self.address(problem.query, problem.query.shape)),
            *(
                _pointers([self.address(t, (batch, c, *size)) for t, size in zip(level, sizes, strict=True)])
                for level, c in ((problem.keys, channels), (problem.scales, 1), (problem.values, depth))
            ),
        )

    def address(self, tensor: Tensor, shape: tuple[int, ...]) -> int:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.shape != shape or not tensor.numel():
            raise ValueError(
                f"expected a float32 CPU tensor of shape {tuple(shape)}, "
                f"got {tensor.dtype} on {tensor.device} of shape {tuple(tensor.shape)}"
            )
        self._kept.append(tensor.contiguous())
        return self._kept[-1].data_ptr()

    def _tables(self, visible: Sequence[Visible] | None) -> ctypes.Array | None:
        if visible is None:
            return None
        tables = [edge.contiguous() for seen in visible for axis in seen for edge in axis]
        self._kept += tables
        return _pointers([table.data_ptr() for table in tables])

    def __call__(self, name: str, *more: int | ctypes.Array) -> None:
        library = _library()
        if library is None:
            raise RuntimeError("the C++ kernel of pyramid attention is not available; see the log")
        pointers = (ctypes.c_void_p(argument) if isinstance(argument, int) else argument for argument in more)
        if getattr(library, name)(*self._arguments, *pointers):
            raise MemoryError("pyramid attention ran out of memory")


def _pointers(addresses: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_void_p * len(addresses))(*addresses)


@functools.cache
def _library() -> ctypes.CDLL | None:
    # Not at the top: `python -m panet_plugin.ops.build` imports this package before it runs that module.
    from panet_plugin.ops.build import BuildError, build

    try:
        return ctypes.CDLL(str(build()))
    except (BuildError, OSError) as error:
        _log.warning("The C++ kernel of pyramid attention is not available: %s", " ".join(str(error).split()))
        return None
