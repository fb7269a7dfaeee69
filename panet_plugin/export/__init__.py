"""Networks as files that run without this project: ONNX, ``torch.export`` and TorchScript; and as safetensors."""

from panet_plugin.errors import ExportError
from panet_plugin.export.export import LEAST_OPSET, Difference, export_network
from panet_plugin.export.formats import FORMATS

__all__ = ["FORMATS", "LEAST_OPSET", "Difference", "ExportError", "export_network"]
