"""Pyramid attention by Triton kernels for CUDA: 3x3 patches, soft matching, float32; no autograd inside.

Results are the same from run to run, and a call copies nothing to the device and waits for nothing: it can be captured
in a CUDA graph.
"""

import importlib.util
import math
import os
import shutil
import sysconfig
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.problem import Gradients, Problem, Saved
from panet_plugin.ops.pyramid import overlap_divisor

name = "triton"

#: Most bytes of patches at one time where they are not kept for a backward pass.
PATCH_BYTES = 2**28
#: Pixels of a program that only adds up what is there.
SIMPLE_BLOCK = 32
#: Most channels that a program has sums of.
LARGEST_BLOCK = 64
#: Numbers of a line of the table of levels.
LEVEL = 9


class Tiling(NamedTuple):
    """How a kernel divides its work.

    Attributes:
        rows: Of a tile, whose sums one program has.
        columns: The same.
        block: Pixels that it goes through at a time.
        warps: Of a program.
        stages: Of its loops.
    """

    rows: int
    columns: int
    block: int
    warps: int
    stages: int


#: By kernel and precision of the products. What compiles without spilled registers: tools/compile_triton.py.
TILINGS = {
    ("forward_kernel", "ieee"): Tiling(4, 4, 32, 8, 1),
    ("query_kernel", "ieee"): Tiling(4, 4, 16, 8, 1),
    ("key_kernel", "ieee"): Tiling(4, 4, 16, 8, 1),
    ("value_kernel", "ieee"): Tiling(4, 4, 16, 8, 1),
    ("forward_kernel", "tf32"): Tiling(8, 8, 64, 8, 1),
    ("query_kernel", "tf32"): Tiling(8, 8, 32, 8, 1),
    ("key_kernel", "tf32"): Tiling(8, 8, 32, 8, 1),
    ("value_kernel", "tf32"): Tiling(8, 8, 32, 8, 1),
    ("forward_kernel", "bf16"): Tiling(8, 8, 64, 8, 2),
    ("query_kernel", "bf16"): Tiling(8, 8, 32, 8, 1),
    ("key_kernel", "bf16"): Tiling(8, 8, 32, 8, 1),
    ("value_kernel", "bf16"): Tiling(8, 8, 32, 8, 1),
}
#: For maps of so few tiles that they would not busy a GPU, and where sums of larger tiles do not stay in registers.
SMALL_TILING = Tiling(4, 4, 32, 8, 1)


def why_not(problem: Problem) -> str | None:
    """Return why it cannot do what is asked, if so."""
    if not (problem.query.is_cuda or _is_interpreted()):
        return f"it needs CUDA tensors, got {problem.query.device}"
    if reason := problem.why_not_published():
        return f"it does {reason}"
    return _missing(problem.query.device.index)


@torch.compiler.assume_constant_result
def _missing(device: int | None) -> str | None:
    """Return what Triton lacks on a CUDA device, if anything; None stands for the CPU, where it is interpreted."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if device is None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < (7, 0):
        return f"it needs a GPU of compute capability 7.0 or newer, got {capability[0]}.{capability[1]}"
    # Triton compiles what launches its kernels.
    if not shutil.which(os.environ.get("CC") or shutil.which("gcc") or "clang"):
        return "Triton needs a C compiler: install gcc or clang, or set CC"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "Triton needs Python.h: install the development files of Python"
    return None


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def padded(channels: int) -> int:
    """Return how many channels the kernels have of an image: some blocks of 64, or one of 16 or 32.

    Every block of the sums has a program that computes all scores: few large ones, partly of zeros, are less work.
    """
    return math.ceil(channels / LARGEST_BLOCK) * LARGEST_BLOCK if channels > 32 else 32 if channels > 16 else 16


def patches_shape(query: Tensor, values: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the shape of the patches that are kept for the backward pass."""
    return query.shape[0], query.shape[2] * query.shape[3], 9, padded(values[0].shape[1])


def forward(problem: Problem) -> tuple[Tensor, Saved]:
    """Compute pyramid attention ``(N, D, H, W)`` in memory linear in the pixels, and what its backward pass needs.

    In training the patches are kept. Otherwise they are made and added up some rows at a time.
    """
    call = _Call(problem)
    height, width = problem.size
    depth = problem.values[0].shape[1]
    output = call.empty(depth, height, width)
    log_sums = call.empty(height, width)
    rows = height
    if not problem.training:
        rows = min(height, max(8, PATCH_BYTES // (4 * len(problem.query) * width * 9 * call.depth)))
    patches = call.empty(0)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        # What is pasted on these rows, patches of one more to each side have part in.
        strip = max(first - 1, 0), min(last + 1, height) - max(first - 1, 0)
        patches = call.empty(strip[1] * width, 9, call.depth)
        call.run("forward_kernel", strip[1], call.depth, call.values, patches, log_sums, more=strip)
        call.fold(patches, output, 0, strip, (first, last - first), overlap_divisor(3))
    return output, Saved(log_sums, patches if problem.training else None)


def backward(grad: Tensor, problem: Problem, saved: Saved) -> Gradients:
    """Return the gradients, computing the scores again.

    Args:
        grad: Gradient of the output, ``(N, D, H, W)``.
        problem: As given to :func:`forward`, in training.
        saved: From :func:`forward`.
    """
    call = _Call(problem)
    query, keys, values = problem.query, problem.keys, problem.values
    height, width = problem.size
    slope = call.pack([grad / overlap_divisor(3)], call.depth)
    means = call.empty(height, width)
    call.average(slope, saved.patches, means)
    log_sums = saved.normalizer.contiguous()
    d_query = torch.empty(query.shape, device=query.device)
    d_keys, d_values = ([torch.empty(x.shape, device=x.device) for x in level] for level in (keys, values))
    patches = call.empty(height * width, 9, call.channels)
    call.run("query_kernel", height, call.channels, call.values, slope, log_sums, means, patches)
    call.fold(patches, d_query, 0, (0, height), (0, height), 1)

    d_scale = call.empty(call.num_keys)
    patches = call.empty(call.num_keys, 9, call.channels)
    call.run("key_kernel", None, call.channels, call.values, slope, log_sums, means, patches, d_scale)
    call.fold_levels(patches, d_keys)
    patches = call.empty(call.num_keys, 9, call.depth)
    call.run("value_kernel", None, call.depth, slope, log_sums, patches)
    call.fold_levels(patches, d_values)
    d_scales = d_scale.split([math.prod(size) for size in problem.sizes], 1)
    d_scales = [d.clone().view(scale.shape) for d, scale in zip(d_scales, problem.scales, strict=True)]
    return d_query, d_keys, d_scales, d_values


def constants(kernel: str, channels: int, depth: int, products: str, small: bool) -> dict[str, Any]:
    """Return the constants and options that a kernel is compiled with.

    Args:
        kernel: Its name.
        channels: Of what is matched, :func:`padded`.
        depth: Of what is pasted, :func:`padded`.
        products: See :class:`~panet_plugin.ops.problem.Problem`.
        small: Whether tiles are to be small.
    """
    if kernel == "level_kernel":
        return {}
    if kernel in ("mean_kernel", "fold_kernel"):
        return {"D": depth, "D_BLOCK": min(depth, LARGEST_BLOCK), "BLOCK": SIMPLE_BLOCK}
    tiling = SMALL_TILING if small and products != "ieee" else TILINGS[kernel, products]
    return {
        **{"C": channels, "C_BLOCK": min(channels, LARGEST_BLOCK), "D": depth, "D_BLOCK": min(depth, LARGEST_BLOCK)},
        **{"ROWS": tiling.rows, "COLUMNS": tiling.columns, "BLOCK": tiling.block},
        "PRECISION": "tf32" if products == "tf32" else "ieee",
        **{"num_warps": tiling.warps, "num_stages": tiling.stages},
    }


def has_small_tiles(arch: int, products: str) -> bool:
    """Return whether a GPU, of ten times this compute capability, takes small tiles for maps of any size.

    Only Hopper keeps the sums of larger ones: others spill them, or have too little memory beside the tensor cores.
    Where these are of bfloat16, Triton 3.2 ends the process instead of compiling them.
    """
    if not 90 <= arch < 100:
        return True
    import triton

    return products == "bf16" and triton.__version__.startswith("3.2.")


class _Call:
    """What all kernels of a call share: the images as lists of pixels, the table of levels."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.query = problem, problem.query
        (self.height, self.width), self.sizes = problem.size, problem.sizes
        self.channels, self.depth = (padded(x.shape[1]) for x in (self.query, problem.values[0]))
        # Of every level the first pixel, with borders, and the first key; then how many there are of all.
        *self.starts, self.key_pixels = accumulate(((h + 2) * (w + 2) for h, w in self.sizes), initial=0)
        *self.before, self.num_keys = accumulate((h * w for h, w in self.sizes), initial=0)
        self.inputs = (
            self.pack([self.query], self.channels),
            self.pack(problem.keys, self.channels),
            torch.cat([scale.flatten(1) for scale in problem.scales], 1) * math.log2(math.e),
        )
        self.values = self.pack(problem.values, self.depth)

    def pack(self, images: Sequence[Tensor], channels: int) -> Tensor:
        """Lay images out as ``(N, pixels, channels)``, with borders, and zeros for channels that they lack."""
        dtype = torch.bfloat16 if self.problem.products == "bf16" else torch.float32
        padded = [F.pad(x.to(dtype), (1, 1, 1, 1, 0, channels - x.shape[1])).flatten(2) for x in images]
        return torch.cat(padded, 2).transpose(1, 2).contiguous()

    def empty(self, *shape: int) -> Tensor:
        """Allocate something for every sample."""
        return self.query.new_empty(len(self.query), *shape)

    def run(self, kernel: str, rows: int | None, channels: int, *tensors: Tensor, more: Sequence[int] = ()) -> None:
        """Run a kernel for every tile, block of channels and sample.

        Args:
            kernel: Its name.
            rows: How many of the query's the tiles are of; None for tiles of all levels.
            channels: Of its sums.
            tensors: Its arguments after the table of levels, after the values if these are the first of them.
            more: Its last arguments.
        """
        sizes = self.sizes if rows is None else [(rows, self.width)]
        capability, multiprocessors = self._device()
        small = has_small_tiles(capability, self.problem.products)
        for _ in range(2):
            options = constants(kernel, self.channels, self.depth, self.problem.products, small)
            tiles = [math.ceil(h / options["ROWS"]) * math.ceil(w / options["COLUMNS"]) for h, w in sizes]
            programs = sum(tiles) * (channels // min(channels, LARGEST_BLOCK)) * len(self.query)
            if small or programs >= multiprocessors:
                break
            small = True
        levels = self._describe(tiles if rows is None else [0] * len(self.sizes))
        before = (self.values,) if tensors[0] is self.values else ()
        frame = self.problem.frame[:4] if self.problem.frame else (0, 0, self.height, self.width)
        numbers = (
            *(self.height, self.width, *frame, self.problem.window or max(self.height, self.width)),
            *((self.height + 2) * (self.width + 2), self.key_pixels, self.num_keys, len(self.sizes), sum(tiles)),
        )
        arguments = *self.inputs, *before, levels, *tensors[len(before) :], *numbers, *more
        self._launch(kernel, programs, *arguments, **options)

    def average(self, slope: Tensor, patches: Tensor | None, means: Tensor) -> None:
        """Write the mean over keys of weight times slope of every query."""
        sizes = self.height, self.width, (self.height + 2) * (self.width + 2), means.numel()
        options = constants("mean_kernel", self.channels, self.depth, self.problem.products, False)
        self._launch("mean_kernel", math.ceil(means.numel() / SIMPLE_BLOCK), slope, patches, means, *sizes, **options)

    def fold(
        self,
        patches: Tensor,
        image: Tensor,
        offset: int,
        there: tuple[int, int],
        wanted: tuple[int, int],
        divisor: int,
    ) -> None:
        """Add patches, from an offset on, up to an image.

        Args:
            patches: ``(N, pixels, 9, channels)``.
            image: ``(N, D, h, w)``; is changed.
            offset: Of the first pixel that is of the image.
            there: The first row of the image of which there are patches, and how many rows.
            wanted: The first row of the image to be written, and how many.
            divisor: Of the sums.
        """
        channels, height, width = image.shape[1:]
        options = constants("fold_kernel", self.channels, patches.shape[-1], self.problem.products, False)
        blocks = math.ceil(wanted[1] * width / SIMPLE_BLOCK) * (options["D"] // options["D_BLOCK"])
        numbers = height, width, offset, patches.shape[1], *there, *wanted, channels
        self._launch("fold_kernel", blocks * len(image), patches, image, *numbers, **options, DIVISOR=divisor)

    def fold_levels(self, patches: Tensor, images: Sequence[Tensor]) -> None:
        """Add patches of all keys up to an image per level."""
        for image, offset in zip(images, self.before, strict=True):
            rows = 0, image.shape[-2]
            self.fold(patches, image, offset, rows, rows, 1)

    def _describe(self, tiles: Sequence[int]) -> Tensor:
        """Return the table of levels, written by the device: a copy from here would not go into a CUDA graph."""
        table = torch.empty(len(self.sizes), LEVEL, dtype=torch.int32, device=self.query.device)
        first_tiles = accumulate(tiles[:-1], initial=0)
        for level, (size, *numbers, tile) in enumerate(
            zip(self.sizes, self.starts, self.before, first_tiles, strict=True)
        ):
            frame = self.problem.frame[4 * level + 4 : 4 * level + 8] or (0, 0, *size)
            self._launch("level_kernel", 1, table, level, *numbers, *size, *frame, tile)
        return table

    def _device(self) -> tuple[int, int]:
        """Return ten times the compute capability, and the number of multiprocessors."""
        if not self.query.is_cuda:  # Interpreted.
            return 90, 1
        there = torch.cuda.get_device_properties(self.query.device)
        return 10 * there.major + there.minor, there.multi_processor_count

    def _launch(self, kernel: str, programs: int, *arguments: Tensor | int | None, **options: Any) -> None:
        # Imported when asked for: it takes a while, and CPU builds of PyTorch come without it.
        from panet_plugin.ops import triton_kernels

        with torch.cuda.device_of(self.query):
            getattr(triton_kernels, kernel)[(programs,)](*arguments, **options)
