"""Pyramid attention by a C++ kernel: 3x3 patches, soft matching, float32 on a CPU; no autograd inside."""

import ctypes
import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from panet_plugin.ops.window import Visible

_log = logging.getLogger(__name__)


def is_available() -> bool:
    """Return whether the kernel can be used; the first call builds or loads it, and logs one line if it cannot."""
    return _library() is not None


def has_bfloat16() -> bool:
    """Return whether the kernel can be used and multiplies in bfloat16 when asked to.

    That takes AVX512_BF16. Where the processor has a matrix unit, too (AMX), it is used.
    """
    library = _library()
    return library is not None and bool(library.panet_has_bfloat16())


def forward(
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    bfloat16: bool = False,
    visible: Sequence[Visible] | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute pyramid attention in memory linear in the pixels.

    Args:
        query: ``(N, C, H, W)`` float32 on the CPU, as are all others.
        keys: One ``(N, C, h, w)`` per level.
        scales: One ``(N, 1, h, w)`` per level, from :func:`~panet_plugin.ops.pyramid.key_scale` with ``ksize=3``.
        values: One ``(N, D, h, w)`` per level.
        bfloat16: Round the operands of the products to bfloat16; sums and all else stay float32. Without effect
            unless :func:`has_bfloat16`.
        visible: What each query sees of every level; None for all keys.

    Returns:
        The output ``(N, D, H, W)``, already divided by ``overlap_divisor(3)``, and for :func:`backward` the base-2
        logarithm of the softmax's denominator, ``(N, H, W)``.

    Raises:
        ValueError: If a tensor is not float32 on the CPU or sizes disagree.
        RuntimeError: If the kernel is not available.
        MemoryError: If memory ran out.
    """
    call = _Call(query, keys, scales, values, bfloat16, visible)
    batch, _, height, width = query.shape
    output = torch.zeros(batch, values[0].shape[1], height, width)
    log_sums = torch.zeros(batch, height, width)
    call("panet_forward", output.data_ptr(), log_sums.data_ptr())
    return output, log_sums


def backward(
    grad: Tensor,
    query: Tensor,
    keys: Sequence[Tensor],
    scales: Sequence[Tensor],
    values: Sequence[Tensor],
    log_sums: Tensor,
    bfloat16: bool = False,
    visible: Sequence[Visible] | None = None,
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    """Compute the gradients of :func:`forward`'s output with respect to its four arguments.

    Args:
        grad: ``(N, D, H, W)`` gradient of the output.
        query: As given to :func:`forward`.
        keys: As given to :func:`forward`.
        scales: As given to :func:`forward`; taken as independent of ``keys``.
        values: As given to :func:`forward`.
        log_sums: Second result of :func:`forward`.
        bfloat16: As given to :func:`forward`.
        visible: As given to :func:`forward`.

    Returns:
        Gradients of ``query``, ``keys``, ``scales`` and ``values``, of their shapes.

    Raises:
        ValueError: If a tensor is not float32 on the CPU or sizes disagree.
        RuntimeError: If the kernel is not available.
        MemoryError: If memory ran out.
    """
    call = _Call(query, keys, scales, values, bfloat16, visible)
    expected = (query.shape[0], values[0].shape[1], *query.shape[2:])
    dquery = torch.zeros(query.shape)
    dkeys, dscales, dvalues = ([torch.zeros(t.shape) for t in level] for level in (keys, scales, values))
    call(
        "panet_backward",
        call.address(grad, expected),
        call.address(log_sums, (query.shape[0], *query.shape[2:])),
        dquery.data_ptr(),
        *(_pointers([t.data_ptr() for t in level]) for level in (dkeys, dscales, dvalues)),
    )
    return dquery, dkeys, dscales, dvalues


class _Call:
    """The arguments both entry points share, and the contiguous copies that must outlive the call."""

    def __init__(
        self,
        query: Tensor,
        keys: Sequence[Tensor],
        scales: Sequence[Tensor],
        values: Sequence[Tensor],
        bfloat16: bool,
        visible: Sequence[Visible] | None,
    ):
        self._kept: list[Tensor] = []
        batch, channels, height, width = query.shape
        depth = values[0].shape[1]
        sizes = [key.shape[2:] for key in keys]
        self._arguments = (
            *map(ctypes.c_int64, (batch, channels, depth, height, width, len(keys))),
            (ctypes.c_int64 * len(keys))(*(h for h, _ in sizes)),
            (ctypes.c_int64 * len(keys))(*(w for _, w in sizes)),
            self._tables(visible),
            ctypes.c_int(torch.get_num_threads()),
            ctypes.c_int(bfloat16),
            ctypes.c_void_p(self.address(query, query.shape)),
            *(
                _pointers([self.address(t, (batch, c, *size)) for t, size in zip(level, sizes, strict=True)])
                for level, c in ((keys, channels), (scales, 1), (values, depth))
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
