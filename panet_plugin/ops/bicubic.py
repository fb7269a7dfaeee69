"""Bicubic interpolation as two matrix products: of whole feature maps, and of parts of them.

Unlike PyTorch's own, whose gradient is summed on CUDA in no fixed order, it is deterministic, and no setting rounds it.
Matrices are computed on the device, so nothing is copied to it.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.autocast import without_autocast
from panet_plugin.ops.exporting import current_loop, is_exporting
from panet_plugin.ops.precision import float32_products

#: Longest side of features that are resized by matrix products; for larger ones, these are mostly zeros.
LARGEST_MATRIX = 256


def resize_bicubically(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize features as by ``F.interpolate(mode="bicubic", align_corners=False)``, to within rounding.

    If sides are small, or results must be deterministic (``torch.use_deterministic_algorithms``), this is computed by
    two products with matrices, which are several times faster, in particular the gradient, and deterministic on CUDA.
    Exported programs contain PyTorch's own operator.

    Args:
        features: ``(N, C, H, W)``.
        size: Height and width of the result, in pixels.
    """
    if current_loop() is not None or is_exporting() or torch.jit.is_tracing() or not _by_products(features):
        return F.interpolate(features, size=size, mode="bicubic", align_corners=False)
    make = _kept_matrix if _may_keep(features) else bicubic_matrix
    dtype = _product_dtype(features)
    rows, columns = (make(old, new, dtype, features.device) for old, new in zip(features.shape[-2:], size, strict=True))
    return _multiply(rows, features, columns)


def resize_part(
    features: Tensor, start: tuple[int, int], old: tuple[int, int], new: tuple[int, int]
) -> tuple[Tensor, tuple[int, int]]:
    """Compute the pixels of a resized map that a part of the map determines.

    Args:
        features: The part, ``(N, C, H, W)``.
        start: First row and column of the part in the map.
        old: Height and width of the map.
        new: Height and width of the resized map.

    Returns:
        The pixels, possibly none, and their first row and column.
    """
    dtype = _product_dtype(features)
    axes = list(zip(old, new, (range(i, i + n) for i, n in zip(start, features.shape[-2:], strict=True)), strict=True))
    top, left = (_determined(*axis) for axis in axes)
    rows, columns = (
        bicubic_matrix(before, after, dtype, features.device, determined, there)
        for (before, after, there), determined in zip(axes, (top, left), strict=True)
    )
    return _multiply(rows, features, columns), (top.start, left.start)


def bicubic_matrix(
    old: int,
    new: int,
    dtype: torch.dtype,
    device: torch.device,
    rows: range | None = None,
    columns: range | None = None,
) -> Tensor:
    """Return the matrix ``(new, old)`` that resizes columns of pixels.

    Args:
        old: Pixels of a column.
        new: Pixels of a resized column.
        dtype: Type of the matrix.
        device: Device on which the matrix is computed.
        rows: Rows of the matrix to return; None for all.
        columns: Columns of the matrix to return; None for all.
    """
    # Apple's GPUs do not support float64.
    place = torch.device("cpu") if device.type == "mps" else device
    first, count = (rows.start, len(rows)) if rows is not None else (0, new)
    left, width = (columns.start, len(columns)) if columns is not None else (0, old)
    pixels, weights = _taps(torch.arange(first, first + count, dtype=torch.float64, device=place), old, new)
    columns_there = torch.arange(left, left + width, device=place)
    matrix = torch.zeros(count, width, dtype=torch.float64, device=place)
    for i in range(4):
        matrix = matrix + weights[:, i, None] * (pixels[:, i, None] == columns_there)
    return matrix.to(dtype).to(device)


@lru_cache(maxsize=256)
def _kept_matrix(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A matrix that is created in inference mode must also be usable in training.
    with torch.inference_mode(False):
        return bicubic_matrix(old, new, dtype, device)


@lru_cache(maxsize=4096)
def _determined(old: int, new: int, part: range) -> range:
    """Return which of ``new`` resized pixels depend only on a part of the ``old`` pixels."""
    pixels, _ = _taps(torch.arange(new, dtype=torch.float64), old, new)
    there = ((pixels >= part.start) & (pixels < part.stop)).all(1).nonzero()[:, 0]
    return range(int(there[0]), int(there[-1]) + 1) if len(there) else range(0)


def _taps(index: Tensor, old: int, new: int) -> tuple[Tensor, Tensor]:
    """Return the four pixels on which a resized pixel depends, and their weights, ``(pixels, 4)`` each."""
    center = (index + 0.5) * (old / new) - 0.5
    pixels = center.floor()[:, None] + torch.arange(-1, 3, device=index.device)
    return pixels.clamp(0, old - 1).long(), _cubic((center[:, None] - pixels).abs())


def _cubic(distance: Tensor) -> Tensor:
    """Return PyTorch's bicubic kernel (a = -0.75) for distances of at most 2."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)


def _multiply(rows: Tensor, features: Tensor, columns: Tensor) -> Tensor:
    with without_autocast(features.device):
        return (rows @ (features.to(rows.dtype) @ columns.t())).to(features.dtype)


def _product_dtype(features: Tensor) -> torch.dtype:
    """Return the type in which to multiply: half precision would round the matrices.

    Rounded levels would affect everything computed from them, so float64 is used if PyTorch may round float32 products.
    """
    exact = float32_products(features.device.type) == "ieee" or features.device.type == "mps"
    return torch.promote_types(features.dtype, torch.float32 if exact else torch.float64)


def _by_products(features: Tensor) -> bool:
    if features.device.type == "mps" and float32_products("mps") != "ieee":
        return False  # without float64
    return max(features.shape[-2:]) <= LARGEST_MATRIX or torch.are_deterministic_algorithms_enabled()


def _may_keep(features: Tensor) -> bool:
    """Return whether matrices may be cached.

    Compiled programs and CUDA graphs compute their own, since a cached one may have been freed when they run. Fake
    tensors must not be cached.
    """
    if torch.compiler.is_compiling() or type(features) is not Tensor:
        return False
    return not (features.is_cuda and torch.cuda.is_current_stream_capturing())
