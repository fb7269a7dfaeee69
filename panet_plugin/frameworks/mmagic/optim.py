"""Training in bfloat16 with MMEngine on CPUs and GPUs."""

from collections.abc import Iterator, Mapping
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
    """An ``OptimWrapper`` whose forward passes run under autocast to bfloat16, on devices that support it natively.

    On other devices, such as CPUs without AVX512-BF16 or AMX, where bfloat16 is many times slower, they stay in
    float32. Weights, gradients and the optimizer's state are always float32. Bfloat16 has the range of float32, so the
    loss is not scaled. MMEngine's ``AmpOptimWrapper`` does not support CPUs.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run a forward pass of ``model``."""
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=computes_bfloat16(device)):
            yield


def computes_bfloat16(device: str) -> bool:
    """Return whether a device type has instructions for bfloat16 instead of emulating it."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        # Older versions of PyTorch do not provide this information.
        has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
    return torch.amp.is_autocast_available(device)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps the weights of convolutions in the memory format ``channels_last``, which is faster in bfloat16."""

    def before_run(self, runner: Runner) -> None:
        """Convert the model; checkpoints that are loaded later are copied into this format."""
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        nn.Module.to(model, memory_format=torch.channels_last)
