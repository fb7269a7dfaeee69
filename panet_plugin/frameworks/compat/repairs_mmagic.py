"""Patches of MMagic 1.2.0, mmcv 2.1 and MMEngine 0.10 for current versions of PyTorch and NumPy."""

import codecs
import importlib
import importlib.util
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from panet_plugin.frameworks.compat.placeholders import importable, placeholders

# Packages that MMagic's modules import, but that image restoration does not need.
_OPTIONAL = {
    "albumentations": {"albumentations": ("Compose",)},
    "huggingface_hub": {"huggingface_hub": ("snapshot_download",)},
    "lpips": {"lpips": ("LPIPS",)},
    "pandas": {"pandas": ("DataFrame",)},
    "resize_right": {"resize_right": ("resize",)},
    "safetensors": {"safetensors": ("safe_open",)},
}
# These import each other, so that a placeholder for one would break the others.
_DIFFUSION: dict[str, dict[str, tuple[str, ...]]] = {
    "diffusers": {
        "diffusers.models.unet_2d_condition": ("UNet2DConditionOutput",),
        "diffusers": ("DiffusionPipeline", "Transformer2DModel"),
        "diffusers.configuration_utils": ("ConfigMixin", "register_to_config"),
        "diffusers.models.attention": ("AdaLayerNorm", "Attention", "BasicTransformerBlock", "FeedForward"),
        "diffusers.models.embeddings": ("TimestepEmbedding", "Timesteps"),
        "diffusers.models.modeling_utils": ("ModelMixin",),
        "diffusers.pipelines.paint_by_example": ("PaintByExampleImageEncoder",),
        "diffusers.pipelines.stable_diffusion": ("StableUnCLIPImageNormalizer",),
        "diffusers.schedulers": ("DDPMScheduler",),
        "diffusers.utils": ("BaseOutput", "is_torch_version"),
        "diffusers.utils.import_utils": ("is_xformers_available",),
    },
    "transformers": {
        "transformers.models.clip.feature_extraction_clip": ("CLIPFeatureExtractor",),
        "transformers": (
            *("CLIPConfig", "CLIPImageProcessor", "CLIPModel", "CLIPPreTrainedModel", "CLIPTextModel"),
            *("CLIPTokenizer", "CLIPVisionConfig", "CLIPVisionModel", "CLIPVisionModelWithProjection"),
            "PreTrainedModel",
        ),
        "transformers.modeling_outputs": ("BaseModelOutputWithPooling",),
    },
    "controlnet_aux": {"controlnet_aux": ("HEDdetector",)},
}


@contextmanager
def numpy_bool8() -> Iterator[None]:
    """Provide ``np.bool8`` during an import.

    Symptom: ``import mmagic.utils`` raises AttributeError, module 'numpy' has no attribute 'bool8'.
    Cause: ``mmagic/utils/trans_utils.py`` uses, in a table, a name that NumPy 2 dropped.
    Does nothing if NumPy has the name.
    """
    if hasattr(np, "bool8"):
        yield
        return
    vars(np)["bool8"] = np.bool_
    try:
        yield
    finally:
        del vars(np)["bool8"]


def optional_packages() -> AbstractContextManager[None]:
    """Stand in, during an import, for packages that MMagic imports but image restoration does not need.

    Symptom: ``import mmagic.models`` raises ImportError for diffusers, lpips, pandas and others in turn.
    Cause: ``mmagic/models/editors/__init__.py`` imports every editor, and each of them what it needs.
    Does nothing for a package that has all that MMagic imports from it.
    """
    packages = [package for package, needs in _OPTIONAL.items() if not importable(needs)]
    return placeholders(packages, called_at_import={})


def diffusion_packages() -> AbstractContextManager[None]:
    """Stand in, during an import, for diffusers and its relatives, installed or not.

    Symptom: ``import mmagic.models`` raises ImportError for a submodule of diffusers or transformers.
    Cause: current releases have removed modules that MMagic imports. The packages are hidden during the import and
    restored after it, so that other code may use them.
    Does nothing if all of them have all that MMagic imports from them.
    """
    if all(importable(needs) for needs in _DIFFUSION.values()):
        return placeholders([], called_at_import={})
    return placeholders(
        _DIFFUSION,
        called_at_import={"is_xformers_available": lambda: False, "register_to_config": lambda init: init},
    )


def compiled_ops() -> AbstractContextManager[None]:
    """Stand in, during an import, for mmcv's compiled operators.

    Symptom: ``import mmcv.ops``, and with it ``mmagic.models``, raises ModuleNotFoundError for 'mmcv._ext'.
    Cause: mmcv-lite has no compiled part, and mmcv with one does not build with today's PyTorch. The stand-in must go
    after the import: MMEngine takes its presence for a sign that mmcv is complete.
    Does nothing if mmcv has a compiled part that loads.
    """
    extension = "mmcv._ext"
    return placeholders([] if importable({extension: ("get_compiler_version",)}) else [extension], called_at_import={})


def package_lookup() -> None:
    """Let MMEngine find installed packages.

    Symptom: a config that inherits from ``mmagic::...`` raises ModuleNotFoundError for 'pkg_resources'.
    Cause: ``mmengine/utils/package_utils.py`` uses a module that setuptools 82 dropped.
    Does nothing if setuptools still has it.
    """
    if importlib.util.find_spec("pkg_resources"):
        return
    for name in ("mmengine.utils.package_utils", "mmengine.utils", "mmengine.config.config", "mmengine.hub.hub"):
        module = importlib.import_module(name)
        for function in (_is_installed, _get_installed_path):
            if hasattr(module, function.__name__[1:]):
                setattr(module, function.__name__[1:], function)


def _is_installed(package: str) -> bool:
    try:
        _get_installed_path(package)
    except (ModuleNotFoundError, RuntimeError):
        return False
    return True


def _get_installed_path(package: str) -> str:
    """Return the folder of a module, by its name or that of its distribution."""
    modules = (name for name, owners in packages_distributions().items() if package in owners)
    spec = importlib.util.find_spec(package) or importlib.util.find_spec(next(modules, package))
    if spec is None:
        raise ModuleNotFoundError(f"No package named {package!r}", name=package)
    if spec.origin is None:
        raise RuntimeError(f"{package} is a namespace package without a single folder")
    return str(Path(spec.origin).parent)


def plain_files() -> None:
    """Read YAML as plain values wherever MMEngine reads files, and no pickles.

    Symptom: an annotation file, or a ``_base_`` of a config, runs code when it is read.
    Cause: ``mmengine/fileio/handlers`` reads YAML with PyYAML's full loader, and ``.pkl`` with ``pickle``; nothing here
    needs either. Writing stays as it is.
    """
    from mmengine.fileio.handlers import PickleHandler, YamlHandler, register_handler

    from panet_plugin.frameworks.configs import ConfigError, parse_yaml

    class PlainYamlHandler(YamlHandler):
        def load_from_fileobj(self, file: IO[str], **kwargs: Any) -> Any:
            try:
                return parse_yaml(file.read())
            except ConfigError as error:
                raise ConfigError(f"{_name_of(file)}: {error}") from error

    class NoPickleHandler(PickleHandler):
        def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
            raise ConfigError(f"{_name_of(file)}: pickles can run code, expected .json or .yml")

    register_handler(["yaml", "yml"])(PlainYamlHandler)
    register_handler(["pickle", "pkl"])(NoPickleHandler)


def whole_files() -> None:
    """Make MMEngine write files on local disks atomically.

    Symptom: a process that is killed while it saves, or a full disk, leaves half a checkpoint under its final name.
    Cause: ``LocalBackend.put`` opens the file itself and writes into it.
    """
    from mmengine.fileio.backends import LocalBackend

    from panet_plugin.files import write_bytes

    def put(self: Any, obj: Any, filepath: Any) -> None:
        write_bytes(filepath, obj.getvalue() if hasattr(obj, "getvalue") else obj)

    LocalBackend.put = put


def _name_of(file: IO[Any]) -> Any:
    # MMEngine's `load` has the name, but passes only the content to its handlers.
    return sys._getframe(2).f_locals.get("file", file)


def checkpoint_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read what MMEngine stores beside the weights.

    Symptom: resuming raises UnpicklingError, weights only load failed.
    Cause: MMEngine's checkpoints hold the log as HistoryBuffer objects: NumPy arrays, and methods which pickle as
    ``getattr(HistoryBuffer, name)``. The latter is granted by a ``getattr`` that serves nothing else.
    """
    from mmengine.logging import HistoryBuffer

    rebuild_array: Any = np.empty(0).__reduce__()[0]
    rebuild_scalar: Any = np.float64().__reduce__()[0]
    allowed: list[Any] = [
        HistoryBuffer,
        np.ndarray,
        np.dtype,
        codecs.encode,  # for the bytes of a number; PyTorch 2.4 does not allow it by default
        _named("builtins", "getattr", _history_buffer_method),
        # Files refer to numpy.core if written with NumPy 1, to numpy._core if written with NumPy 2.
        *(_named(f"numpy.{core}.multiarray", "_reconstruct", rebuild_array) for core in ("core", "_core")),
        *(_named(f"numpy.{core}.multiarray", "scalar", rebuild_scalar) for core in ("core", "_core")),
        *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"},
    ]
    torch.serialization.add_safe_globals(allowed)


def _named(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a copy of a function with another name: PyTorch before 2.6 does not accept pairs of function and name."""

    def renamed(*args: Any) -> Any:
        return function(*args)

    renamed.__module__, renamed.__name__, renamed.__qualname__ = module, name, name
    return renamed


def _history_buffer_method(owner: Any, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in MMEngine's checkpoints."""
    from mmengine.logging import HistoryBuffer

    methods = HistoryBuffer()._statistics_methods  # the first instance of a process fills the table
    if owner is not HistoryBuffer or name not in methods:
        raise pickle.UnpicklingError(f"refused: the checkpoint asks for attribute {name!r} of {owner!r}")
    return methods[name]
