"""What MMEngine lacks for training in bfloat16 on CPUs as on GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """An ``OptimWrapper`` whose forward passes run under autocast to bfloat16, on whatever device the model is.

    Weights, gradients and the optimizer's state stay float32. Bfloat16 has the range of float32, so no loss is scaled.
    MMEngine's ``AmpOptimWrapper`` refuses CPUs.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run a forward pass of ``model`` in bfloat16."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the convolutions' weights in the memory format ``channels_last``, which is faster in bfloat16."""

    def before_run(self, runner: Runner) -> None:
        """Convert the model; a checkpoint that is loaded later is copied into this format."""
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        nn.Module.to(model, memory_format=torch.channels_last)
