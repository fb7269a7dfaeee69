"""The bridge to MMagic: importing it patches MMagic where needed and registers this package's classes with MMEngine.

They are added to MMEngine's root registries, which every OpenMMLab package searches. In a config::

    custom_imports = dict(imports=["panet_plugin.frameworks.mmagic"], allow_failed_imports=False)
"""

from mmengine.registry import MODELS, OPTIMIZERS

from panet_plugin.archs import PAEDSR, RNAN, PANet
from panet_plugin.frameworks.compat import enable_mmagic
from panet_plugin.optim import MuonAdam

enable_mmagic()

from panet_plugin.frameworks.mmagic.archs import (  # noqa: E402 - needs the repairs
    BasicSRArch,
    PyramidAttention,
    PyramidNonLocal2d,
    WithPyramidAttention,
)
from panet_plugin.frameworks.mmagic.datasets import CleanImageDataset, PairedLMDBDataset  # noqa: E402
from panet_plugin.frameworks.mmagic.hooks import WholeCheckpointHook  # noqa: E402
from panet_plugin.frameworks.mmagic.metrics import ProtocolPSNR, ProtocolSSIM  # noqa: E402
from panet_plugin.frameworks.mmagic.optim import BFloat16OptimWrapper, ChannelsLastHook  # noqa: E402
from panet_plugin.frameworks.mmagic.samplers import SequentialSampler  # noqa: E402
from panet_plugin.frameworks.mmagic.transforms import (  # noqa: E402
    AddGaussianNoise,
    CompressJPEG,
    DegradeByTask,
    DownsampleBicubic,
    MosaicBayer,
    RandomFullRangeGray,
)

__all__ = [
    "AddGaussianNoise",
    "BFloat16OptimWrapper",
    "BasicSRArch",
    "ChannelsLastHook",
    "CleanImageDataset",
    "CompressJPEG",
    "DegradeByTask",
    "DownsampleBicubic",
    "MosaicBayer",
    "PairedLMDBDataset",
    "ProtocolPSNR",
    "ProtocolSSIM",
    "PyramidAttention",
    "PyramidNonLocal2d",
    "RandomFullRangeGray",
    "SequentialSampler",
    "WholeCheckpointHook",
    "WithPyramidAttention",
]

for network in (PANet, PAEDSR, RNAN):
    MODELS.register_module(module=network)

OPTIMIZERS.register_module(module=MuonAdam)
