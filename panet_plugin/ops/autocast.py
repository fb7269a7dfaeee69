"""Disabling autocast."""

import contextlib

import torch


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context without autocast on a device."""
    # Checked first: not every device has autocast, and exporters do not support unnecessary contexts.
    if _has_autocast(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


@torch.compiler.assume_constant_result  # PyTorch 2.7 cannot compile this call.
def _has_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)
