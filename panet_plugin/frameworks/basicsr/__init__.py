"""The bridge to BasicSR: importing it patches BasicSR where needed and registers this package's classes."""

from panet_plugin.archs import PAEDSR, RNAN, PANet
from panet_plugin.frameworks.compat import enable_basicsr

enable_basicsr()

from basicsr.utils.registry import ARCH_REGISTRY  # noqa: E402 - needs the repairs

from panet_plugin.frameworks.basicsr.archs import MMagicArch, WithPyramidAttention  # noqa: E402
from panet_plugin.frameworks.basicsr.datasets import CleanImageDataset, PairedLMDBDataset  # noqa: E402
from panet_plugin.frameworks.basicsr.metrics import calculate_protocol_psnr, calculate_protocol_ssim  # noqa: E402
from panet_plugin.frameworks.basicsr.models import RestorationModel  # noqa: E402

__all__ = [
    "CleanImageDataset",
    "MMagicArch",
    "PairedLMDBDataset",
    "RestorationModel",
    "WithPyramidAttention",
    "calculate_protocol_psnr",
    "calculate_protocol_ssim",
]

for network in (PANet, PAEDSR, RNAN):
    ARCH_REGISTRY.register(network)
