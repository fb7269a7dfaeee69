"""Exporting networks to ONNX, ``torch.export`` and TorchScript, which run without this project, and safetensors."""

from panet_plugin.errors import ExportError
from panet_plugin.export.export import LEAST_OPSET, Difference, export_network
from panet_plugin.export.formats import FORMATS

__all__ = ["FORMATS", "LEAST_OPSET", "Difference", "ExportError", "export_network"]
