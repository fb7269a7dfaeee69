"""Where autocast must not reach."""

import contextlib

import torch


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context in which autocast does not reach the operations on a device."""
    # Asked first: not every device has autocast, and exporters cannot do with a context they do not need.
    if _has_autocast(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


@torch.compiler.assume_constant_result  # PyTorch 2.7 cannot compile the question.
def _has_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)
