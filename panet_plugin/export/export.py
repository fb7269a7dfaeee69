"""Exporting a network to a file, which is checked before it is saved."""

import copy
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from panet_plugin.errors import ExportError
from panet_plugin.export.formats import FORMATS
from panet_plugin.files import write_bytes

#: Shapes ``(N, H, W)`` of the images on which a file is compared with its network; the first is used for the export.
#: Some networks accept only even sides, or multiples of eight. floor(0.7 * 90) is 62 in double precision and 63 in
#: single precision.
_SHAPES = ((2, 32, 48), (1, 24, 40), (2, 48, 32), (1, 37, 29), (1, 13, 90))

#: Lowest version of ONNX's operators that PyTorch's exporter supports.
LEAST_OPSET = 18

#: Allowed difference between the outputs of file and network, relative to the largest value of the network's.
TOLERANCE = 1e-4


class Difference(NamedTuple):
    """Difference between the outputs of a file and its network for images of one shape.

    Attributes:
        shape: Shape of the images, ``(N, C, H, W)``.
        difference: Largest difference, relative to the largest absolute value of the network's output.
    """

    shape: tuple[int, ...]
    difference: float


def export_network(network: nn.Module, path: str | os.PathLike, opset: int | None = None) -> list[Difference]:
    """Export a network to a file that accepts images of any number, height and width, and compare the two.

    The network is exported in evaluation mode and float32. The file is run with ONNX Runtime or PyTorch on random
    images of several sizes, and is saved only if the outputs agree.

    Args:
        network: Maps RGB or gray images ``(N, C, H, W)`` to images. It is not modified.
        path: Ends in one of :data:`~panet_plugin.export.FORMATS`: ``.onnx``, ``.pt2`` (``torch.export``), ``.pt``
            (TorchScript) or, only for networks of this project, ``.safetensors``.
        opset: Version of ONNX's operators, at least :data:`LEAST_OPSET`; None for PyTorch's default.

    Returns:
        The differences for all compared sizes.

    Raises:
        ExportError: If the network cannot be exported, or the outputs differ.
        ImportError: If a package required by the format is not installed.
        OSError: If the file cannot be written.
        ValueError: If the suffix is unknown, or ``opset`` is too low or set for another format than ONNX.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a file that ends in one of {', '.join(FORMATS)}")
    if opset is not None and path.suffix != ".onnx":
        raise ValueError(f"{path}: opset applies only to .onnx, got {opset}")
    if opset is not None and opset < LEAST_OPSET:
        raise ValueError(f"{path}: opset must be at least {LEAST_OPSET}, the lowest that PyTorch supports, got {opset}")
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    title, write, load = FORMATS[path.suffix]
    name = f"{type(network).__name__} as {title}"
    cases = list(_cases(network))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, whose result is checked
        file = Path(folder, path.name)
        try:
            write(network, file, cases[0][0], opset)
            run = load(file)
        except (ExportError, ImportError, OSError):
            raise
        except Exception as error:  # exporters may raise any error
            raise ExportError(f"{name}: export failed: {_first_line(error)}") from error
        differences = [_compare(name, run, *case) for case in cases]
        write_bytes(path, file.read_bytes())
    return differences


def _cases(network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images of every size that the network accepts, and its output."""
    generator = torch.Generator().manual_seed(0)
    errors = {}
    for channels in (3, 1):
        try:
            network(torch.zeros(_SHAPES[0][0], channels, *_SHAPES[0][1:]))
            break
        except Exception as error:
            errors[channels] = _first_line(error)
    else:
        raise ExportError(f"{type(network).__name__}: accepts neither RGB nor gray images (N, C, H, W): {errors}")
    for number, *size in _SHAPES:
        images = torch.rand(number, channels, *size, generator=generator)
        try:
            output = network(images)
        except Exception:  # a size that it does not accept
            continue
        if not isinstance(output, Tensor):
            raise ExportError(f"{type(network).__name__}: returns a {type(output).__name__}, expected a tensor")
        yield images, output


def _compare(name: str, run: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor) -> Difference:
    shape = tuple(images.shape)
    try:
        output = run(images)
    except Exception as error:
        raise ExportError(f"{name}: fails on images of shape {shape}: {_first_line(error)}") from error
    if output.shape != expected.shape:
        raise ExportError(
            f"{name}: returns shape {tuple(output.shape)}, expected {tuple(expected.shape)} for images of shape {shape}"
        )
    difference = ((output - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise ExportError(f"{name}: differs from the network by {difference:.1e} for images of shape {shape}")
    return Difference(shape, difference)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
