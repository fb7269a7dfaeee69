"""How PyTorch has been allowed to multiply float32 matrices."""

import torch

#: What operands of products may be rounded to: nothing, 10 bits of mantissa, 7 bits.
PRODUCTS = ("ieee", "tf32", "bf16")


@torch.compiler.assume_constant_result
def float32_products(device: str) -> str:
    """Return ``"bf16"`` or ``"tf32"`` where operands may be rounded to these, and ``"ieee"`` elsewhere.

    On CUDA, PyTorch itself has no ``"bf16"``; it stands for ``torch.set_float32_matmul_precision("medium")`` there. A
    compiled program keeps what was set when it was compiled.

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
    if device == "cuda" and allowed == "tf32" and _is_medium():
        return "bf16"
    return allowed if allowed in PRODUCTS else "ieee"


def _is_medium() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "medium"
    except RuntimeError:  # The newer settings are in use, which have no such word.
        return False
