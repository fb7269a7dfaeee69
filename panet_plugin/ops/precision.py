"""How PyTorch has been allowed to multiply float32 matrices."""

import torch


def float32_products(device: str) -> str:
    """Return ``"bf16"`` or ``"tf32"`` where operands may be rounded to these, and ``"ieee"`` elsewhere.

    Args:
        device: A type of device, such as ``"cpu"``.
    """
    backend = getattr(torch.backends, {"cpu": "mkldnn"}.get(device, device), None)
    matmul = getattr(backend, "matmul", None)
    # Unlike get_float32_matmul_precision, this never raises where the newer settings are in use.
    allowed = getattr(matmul, "fp32_precision", None)
    if allowed is None:  # PyTorch before 2.9
        words = {"medium": "bf16" if device == "cpu" else "tf32", "high": "ieee" if device == "cpu" else "tf32"}
        allowed = words.get(torch.get_float32_matmul_precision(), "ieee")
    return allowed if allowed in ("bf16", "tf32") else "ieee"
