"""Patches of BasicSR 1.4.2 for current versions of torchvision, and for machines without a GPU."""

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from panet_plugin.frameworks.distributed import init_gloo
from panet_plugin.weights import load_safely


@contextlib.contextmanager
def functional_tensor() -> Iterator[None]:
    """Provide ``torchvision.transforms.functional_tensor`` during an import.

    Symptom: ``import basicsr`` raises ModuleNotFoundError for that module.
    Cause: ``basicsr/data/degradations.py`` takes ``rgb_to_grayscale`` from a module that torchvision 0.17 dropped;
    ``torchvision.transforms.functional`` has the function.
    Does nothing if torchvision has the module.
    """
    name = "torchvision.transforms.functional_tensor"
    if name in sys.modules or importlib.util.find_spec(name):
        yield
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    alias = ModuleType(name)
    vars(alias)["rgb_to_grayscale"] = rgb_to_grayscale
    sys.modules[name] = alias
    try:
        yield
    finally:
        del sys.modules[name]


def jpeg_quality() -> None:
    """Let BasicSR's JPEG degradation run.

    Symptom: ``random_add_jpg_compression`` raises ``cv2.error``, can't parse 'params'.
    Cause: it draws the quality as a float; OpenCV now wants an int, and used to truncate.
    Does nothing if OpenCV takes a float.
    """
    with contextlib.suppress(cv2.error):
        cv2.imencode(".jpg", np.zeros((1, 1), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, np.float64(90)])
        return
    from basicsr.data import degradations

    upstream = degradations.add_jpg_compression

    @functools.wraps(upstream)
    def add_jpg_compression(img: np.ndarray, quality: float = 90) -> np.ndarray:
        return upstream(img, int(quality))

    degradations.add_jpg_compression = add_jpg_compression


def resume_on_cpu() -> None:
    """Load training states without a GPU.

    Symptom: resuming raises RuntimeError or AssertionError, no CUDA device.
    Cause: ``basicsr/train.py`` moves the state to the current CUDA device; optimizers move it to their parameters'
    device anyway.
    Does nothing if CUDA is available.
    """
    if torch.cuda.is_available():
        return
    import basicsr.train

    basicsr.train.load_resume_state = _load_resume_state


def _load_resume_state(opt: dict[str, Any]) -> dict[str, Any] | None:
    from basicsr.utils import check_resume

    if opt["auto_resume"]:
        states = Path("experiments", opt["name"], "training_states").glob("*.state")
        newest = max(states, key=lambda path: float(path.stem), default=None)
        if newest:
            opt["path"]["resume_state"] = str(newest)
    path = opt["path"].get("resume_state")
    if not path:
        return None
    state = load_safely(path, map_location="cpu")
    check_resume(opt, state["iter"])
    return state


def distributed_on_cpu() -> None:
    """Start distributed training without a GPU, on gloo.

    Symptom: ``--launcher pytorch`` and ``slurm`` raise ZeroDivisionError.
    Cause: ``basicsr/utils/dist_util.py`` takes the rank modulo the number of GPUs, and ``basicsr/utils/options.py``
    leaves no choice but NCCL.
    Does nothing if CUDA is available.
    """
    if torch.cuda.is_available():
        return
    from basicsr.utils import dist_util

    dist_util._init_dist_pytorch = _init_dist_pytorch
    dist_util._init_dist_slurm = _init_dist_slurm


def _init_dist_pytorch(backend: str, **kwargs: Any) -> None:
    init_gloo("pytorch")


def _init_dist_slurm(backend: str, port: int | None = None) -> None:
    init_gloo("slurm", port)


def wrap_model_on_cpu() -> None:
    """Wrap networks that are on the CPU for distributed training.

    Symptom: building a model in distributed training without a GPU raises an error, no CUDA device.
    Cause: ``basicsr/models/base_model.py`` always gives DistributedDataParallel the current CUDA device.
    Does nothing if CUDA is available.
    """
    if torch.cuda.is_available():
        return
    from basicsr.models.base_model import BaseModel

    upstream = BaseModel.model_to_device

    def model_to_device(self: BaseModel, net: nn.Module) -> nn.Module:
        if not self.opt["dist"]:
            return upstream(self, net)
        unused = self.opt.get("find_unused_parameters", False)
        return DistributedDataParallel(net.to(self.device), find_unused_parameters=unused)

    BaseModel.model_to_device = model_to_device
