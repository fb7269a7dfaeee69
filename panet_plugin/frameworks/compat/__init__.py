"""Patches with which BasicSR 1.4.2 and MMagic 1.2.0 run on current versions of PyTorch, NumPy and OpenCV.

Each patch is a function with the symptom, the cause and the condition under which it does nothing. Spawned processes
import everything again: scripts should call these functions at the top level, before importing the frameworks, and
guard ``__main__``.
"""

import functools
import importlib

from panet_plugin.frameworks.compat import repairs_basicsr, repairs_mmagic
from panet_plugin.frameworks.compat.safe_loads import safe_downloads, safe_loads

__all__ = ["enable_basicsr", "enable_mmagic"]

_MMAGIC_PACKAGES = (
    *("apis", "datasets", "datasets.transforms", "engine", "evaluation", "models", "models.diffusion_schedulers"),
    *("structures", "utils", "visualization"),
)


@functools.cache
def enable_basicsr() -> None:
    """Patch BasicSR so that it can be imported and run; further calls do nothing.

    Raises:
        ImportError: BasicSR is not installed.
    """
    with repairs_basicsr.functional_tensor():
        importlib.import_module("basicsr")
    safe_loads("basicsr.models.base_model", "basicsr.train", "basicsr.archs.vgg_arch")
    repairs_basicsr.jpeg_quality()
    repairs_basicsr.resume_on_cpu()
    repairs_basicsr.distributed_on_cpu()
    repairs_basicsr.wrap_model_on_cpu()


@functools.cache
def enable_mmagic() -> None:
    """Patch MMagic, mmcv and MMEngine so that they can be imported and run; further calls do nothing.

    MMagic's packages are imported here: it imports all of them on the first lookup in a registry.

    Raises:
        ImportError: MMagic, mmcv or MMEngine is not installed.
    """
    repairs_mmagic.package_lookup()
    safe_loads("mmengine.runner.checkpoint")
    safe_downloads("mmengine.runner.checkpoint")
    repairs_mmagic.checkpoint_globals()
    repairs_mmagic.plain_files()
    repairs_mmagic.whole_files()
    # It registers an optimizer of transformers, which must not be a placeholder.
    importlib.import_module("mmengine.optim")
    with (
        repairs_mmagic.numpy_bool8(),
        repairs_mmagic.compiled_ops(),
        repairs_mmagic.optional_packages(),
        repairs_mmagic.diffusion_packages(),
    ):
        for package in _MMAGIC_PACKAGES:
            importlib.import_module(f"mmagic.{package}")
