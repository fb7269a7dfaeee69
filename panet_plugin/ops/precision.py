"""The precision that PyTorch is allowed to use for products of float32 matrices."""

import torch

#: Precisions of operands: no rounding, 10 bits of mantissa, 7 bits of mantissa.
PRODUCTS = ("ieee", "tf32", "bf16")


@torch.compiler.assume_constant_result
def float32_products(device: str) -> str:
    """Return ``"bf16"`` or ``"tf32"`` if operands may be rounded to these, otherwise ``"ieee"``.

    On CUDA, ``"bf16"`` is returned for ``torch.set_float32_matmul_precision("medium")``, although PyTorch itself does
    not use it there. A compiled program keeps the setting with which it was compiled.

    Args:
        device: A device type, such as ``"cpu"``.
    """
    backend = getattr(torch.backends, {"cpu": "mkldnn"}.get(device, device), None)
    matmul = getattr(backend, "matmul", None)
    # Unlike get_float32_matmul_precision, this never raises when the newer settings are used.
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
    except RuntimeError:  # The newer settings are used, which have no such value.
        return False
