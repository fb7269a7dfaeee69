"""The formats: writing a network to a file, and running the file to check it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from panet_plugin.errors import ExportError
from panet_plugin.ops.exporting import exporting
from panet_plugin.weights import load_official, write_checkpoint


class Format(NamedTuple):
    """A file format.

    Attributes:
        title: Words for messages.
        write: Writes a frozen copy of a network, which it may modify, to a file. Other arguments: images
            ``(2, C, H, W)`` that the network accepts, and the version of ONNX's operators or None.
        load: Loads a file as a function of images.
    """

    title: str
    write: Callable[[nn.Module, Path, Tensor, int | None], None]
    load: Callable[[Path], Callable[[Tensor], Tensor]]


def _write_onnx(network: nn.Module, path: Path, images: Tensor, opset: int | None) -> None:
    _import_onnxruntime()
    axes = {0: "batch", 2: "height", 3: "width"}
    with exporting("scan"):
        torch.onnx.export(
            network,
            (images,),
            path,
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=["input"],
            output_names=["output"],
            opset_version=opset,
            external_data=False,  # one file
            verbose=False,
        )
    if opset is not None:
        import onnx  # onnxscript needs it

        (found,) = (entry.version for entry in onnx.load(path).opset_import if entry.domain in ("", "ai.onnx"))
        if found != opset:
            raise ExportError(f"PyTorch wrote opset {found}, expected {opset}")


def _load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    runtime = _import_onnxruntime()
    options = runtime.SessionOptions()
    # Spinning threads would slow down others on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["output"], {"input": images.numpy()})[0])

    return run


def _import_onnxruntime():
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    except ImportError as error:
        raise ImportError(f"{error}: for ONNX, run pip install onnxruntime onnxscript") from error
    return onnxruntime


def _write_program(network: nn.Module, path: Path, images: Tensor, opset: int | None) -> None:
    axes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with exporting("scan"):
        program = torch.export.export(network, (images,), dynamic_shapes=(axes,))
    torch.export.save(program, path)


def _load_program(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def _write_script(network: nn.Module, path: Path, images: Tensor, opset: int | None) -> None:
    with exporting("script"):
        # The outputs are compared here, also for other sizes.
        script = torch.jit.trace(network, images, check_trace=False)
    torch.jit.save(script, path)


def _load_script(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.jit.load(path)


def _write_safetensors(network: nn.Module, path: Path, images: Tensor, opset: int | None) -> None:
    if getattr(network, "arguments", None) is None:
        raise ExportError("only PANet, PAEDSR and RNAN can be stored with their hyper-parameters")
    write_checkpoint(network, path)


#: Formats by suffix.
FORMATS = {
    ".onnx": Format("ONNX", _write_onnx, _load_onnx),
    ".pt2": Format("torch.export", _write_program, _load_program),
    ".pt": Format("TorchScript", _write_script, _load_script),
    ".safetensors": Format("safetensors", _write_safetensors, load_official),
}
