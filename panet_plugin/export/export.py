"""Writing a network in a format, checked before it is in place."""

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

#: Shapes ``(N, H, W)`` of the images on which a file is compared with its network; the first is that of the export.
#: Some networks take even sides, or multiples of eight, alone. Of 90 pixels 0.7 are 62 in double precision, and 63 in
#: single precision.
_SHAPES = ((2, 32, 48), (1, 24, 40), (2, 48, 32), (1, 37, 29), (1, 13, 90))

#: The first version of ONNX's operators that PyTorch's exporter writes.
LEAST_OPSET = 18

#: Largest difference of a file's output from its network's, in terms of the largest value of the latter.
TOLERANCE = 1e-4


class Difference(NamedTuple):
    """How far a file's output is from its network's for images of one shape.

    Attributes:
        shape: ``(N, C, H, W)`` of the images.
        difference: The largest of all values, in terms of the largest absolute value of the network's output.
    """

    shape: tuple[int, ...]
    difference: float


def export_network(network: nn.Module, path: str | os.PathLike, opset: int | None = None) -> list[Difference]:
    """Write a network to a file that takes images of any number, height and width, and compare the two.

    The network is taken in evaluation mode, in float32. The file is run, by ONNX Runtime or PyTorch, on random images
    of several sizes; one that does not do what the network does is not left behind, and replaces none.

    Args:
        network: From images ``(N, C, H, W)``, RGB or gray, to images. It is not changed.
        path: Ends in one of :data:`~panet_plugin.export.FORMATS`: ``.onnx``, ``.pt2`` (``torch.export``), ``.pt``
            (TorchScript) or, for our networks alone, ``.safetensors``.
        opset: Version of ONNX's operators, at least :data:`LEAST_OPSET`; None is PyTorch's choice.

    Returns:
        The differences on all sizes that were compared.

    Raises:
        ExportError: If the network cannot be written so, or the file does something else.
        ImportError: If a package is missing that the format needs.
        OSError: If the file cannot be written.
        ValueError: If the suffix is unknown, or another format than ONNX is given an ``opset``, or it is too low.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a file that ends in one of {', '.join(FORMATS)}")
    if opset is not None and path.suffix != ".onnx":
        raise ValueError(f"{path}: opset is for .onnx, got {opset}")
    if opset is not None and opset < LEAST_OPSET:
        raise ValueError(f"{path}: opset must be at least {LEAST_OPSET}, the first that PyTorch writes, got {opset}")
    network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    title, write, load = FORMATS[path.suffix]
    name = f"{type(network).__name__} as {title}"
    cases = list(_cases(network))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which is judged by its result
        file = Path(folder, path.name)
        try:
            write(network, file, cases[0][0], opset)
            run = load(file)
        except (ExportError, ImportError, OSError):
            raise
        except Exception as error:  # whatever an exporter does not like about a network
            raise ExportError(f"{name}: cannot be written: {_first_line(error)}") from error
        differences = [_compare(name, run, *case) for case in cases]
        write_bytes(path, file.read_bytes())
    return differences


def _cases(network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images, of every size that the network takes, and its output."""
    generator = torch.Generator().manual_seed(0)
    errors = {}
    for channels in (3, 1):
        try:
            network(torch.zeros(_SHAPES[0][0], channels, *_SHAPES[0][1:]))
            break
        except Exception as error:
            errors[channels] = _first_line(error)
    else:
        raise ExportError(f"{type(network).__name__}: takes neither RGB nor gray images (N, C, H, W): {errors}")
    for number, *size in _SHAPES:
        images = torch.rand(number, channels, *size, generator=generator)
        try:
            output = network(images)
        except Exception:  # not a size that it takes
            continue
        if not isinstance(output, Tensor):
            raise ExportError(f"{type(network).__name__}: returns a {type(output).__name__} and not a tensor")
        yield images, output


def _compare(name: str, run: Callable[[Tensor], Tensor], images: Tensor, expected: Tensor) -> Difference:
    shape = tuple(images.shape)
    try:
        output = run(images)
    except Exception as error:
        raise ExportError(f"{name}: fails on images of shape {shape}: {_first_line(error)}") from error
    if output.shape != expected.shape:
        raise ExportError(
            f"{name}: gives shape {tuple(output.shape)} and not {tuple(expected.shape)} for images of shape {shape}"
        )
    difference = ((output - expected).abs().max() / expected.abs().max()).item()
    if not difference <= TOLERANCE:
        raise ExportError(f"{name}: differs from the network by {difference:.1e} for images of shape {shape}")
    return Difference(shape, difference)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
