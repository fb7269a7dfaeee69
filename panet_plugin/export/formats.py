"""The formats: how a network is written to a file, and how the file is run to see what it does."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from panet_plugin.errors import ExportError
from panet_plugin.ops.exporting import exporting
from panet_plugin.weights import load_official, write_checkpoint


class Format(NamedTuple):
    """A format of files.

    Attributes:
        title: Words for messages.
        write: Writes a frozen network, of which it may change the copy that it gets, to a file. It is also given images
            ``(2, C, H, W)`` that the network takes, and the version of ONNX's operators or None.
        load: Returns a function of images from a file.
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
            raise ExportError(f"PyTorch wrote opset {found} and not {opset}")


def _load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    runtime = _import_onnxruntime()
    options = runtime.SessionOptions()
    # Threads that wait without working would hold up others on a busy machine.
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
        raise ImportError(f"{error}: ONNX needs pip install onnxruntime onnxscript") from error
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
        # What it does is compared by us, on other sizes too.
        script = torch.jit.trace(network, images, check_trace=False)
    torch.jit.save(script, path)


def _load_script(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.jit.load(path)


def _write_safetensors(network: nn.Module, path: Path, images: Tensor, opset: int | None) -> None:
    if getattr(network, "arguments", None) is None:
        raise ExportError("it holds the weights and hyper-parameters of PANet, PAEDSR and RNAN alone")
    write_checkpoint(network, path)


#: Formats by the suffix of their files.
FORMATS = {
    ".onnx": Format("ONNX", _write_onnx, _load_onnx),
    ".pt2": Format("torch.export", _write_program, _load_program),
    ".pt": Format("TorchScript", _write_script, _load_script),
    ".safetensors": Format("safetensors", _write_safetensors, load_official),
}
