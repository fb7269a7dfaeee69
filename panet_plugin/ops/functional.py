"""The public function: checks its arguments and selects an implementation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from panet_plugin.ops.autocast import without_autocast
from panet_plugin.ops.backends import BACKENDS, DIRECT, choose, find
from panet_plugin.ops.custom_op import recomputing_pyramid_attention
from panet_plugin.ops.exporting import current_loop, is_exporting
from panet_plugin.ops.portable import portable_pyramid_attention
from panet_plugin.ops.precision import float32_products
from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import key_scale

#: Values of ``implementation``; ``"auto"`` selects by ``panet_plugin.ops.backends.RULE``.
IMPLEMENTATIONS = ("auto", *BACKENDS)


def pyramid_attention(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    softmax_scale: float = 10.0,
    ksize: int = 3,
    hard: bool = False,
    implementation: str = "auto",
    window: int | None = None,
    frame: Sequence[int] = (),
) -> Tensor:
    """Attend from every pixel's patch to the patches of all pyramid levels (paper, section 3.2, equation 5).

    Args:
        query: ``(N, C, H, W)`` embedding of the input; its patches are not normalized.
        keys: One ``(N, C, h, w)`` embedding per pyramid level; each patch is divided by its L2 norm.
        values: One ``(N, D, h, w)`` embedding per level, of the same sizes as ``keys``.
        softmax_scale: Factor of the scores before the softmax over all levels.
        ksize: Side of the matched and pasted patches in pixels, odd; 1 matches single pixels.
        hard: Paste only the best match (all on ties) instead of the average weighted by the softmax.
        implementation: ``"dense"`` stores every score, and so does ``"sdpa"`` unless PyTorch has a better kernel, which
            requires CUDA. The others compute scores in blocks, in memory linear in the pixels: ``"stream"`` on all
            devices, ``"fused"`` on CPUs and ``"triton"`` on CUDA, both for float32, ``ksize=3`` and ``hard=False``.
            ``"auto"`` selects by device, size, dtype and arguments, and ``"dense"`` when exporting to ONNX.
        window: On every level, a query sees the keys in a square of this many pixels around it, as defined by
            ``panet_plugin.ops.window.visible_range``; None for all keys.
        frame: With a window, the positions of parts in larger maps; see ``panet_plugin.ops.window.visible_keys``.

    Returns:
        ``(N, D, H, W)``: overlap-added value patches divided by ``((ksize + 1) / 2) ** 2``. Zero padding throughout.

    Raises:
        ValueError: If a shape or an argument is invalid, or the implementation does not support the problem.
        RuntimeError: On second derivatives of all but ``"dense"``.
    """
    _check(query, keys, values, ksize, implementation)
    _check_window(window, frame, len(keys))
    dtype = query.dtype
    # With a factor of 10 on sums of 288 products, half precision is not sufficient, so neither autocast nor a
    # half-precision network applies inside.
    with without_autocast(query.device):
        if dtype in (torch.float16, torch.bfloat16):
            query, keys, values = query.float(), [k.float() for k in keys], [v.float() for v in values]
        scales = [key_scale(key, softmax_scale, ksize) for key in keys]
        output = _attend(Problem(query, keys, scales, values, ksize, hard, window, frame), implementation)
        return output.to(dtype)


def _attend(problem: Problem, implementation: str) -> Tensor:
    if current_loop() is not None:
        return portable_pyramid_attention(problem)
    if implementation == "auto" and torch.onnx.is_in_onnx_export():
        implementation = "dense"
    # The operator selects on CPUs, and in exported programs, which may run on any device.
    if implementation == "auto" and problem.query.is_cuda and not is_exporting():
        implementation = choose(problem).name
    if implementation in DIRECT:
        return find(implementation, problem).forward(problem)
    tensors = problem.query, problem.keys, problem.scales, problem.values
    options = problem.ksize, problem.hard, implementation, problem.window or 0, problem.frame
    products, training = "auto", False
    if implementation == "triton":
        products = float32_products("cuda")
        leaves = problem.query, *problem.keys, *problem.values
        training = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    output, *_ = recomputing_pyramid_attention(*tensors, *options, products, training)
    return output


def _check(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], ksize: int, implementation: str) -> None:
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")
    if ksize < 1 or ksize % 2 == 0:
        raise ValueError(f"ksize must be odd and positive, got {ksize!r}")
    if len(keys) != len(values) or not keys:
        raise ValueError(
            f"expected one value per key and at least one level, got {len(keys)} keys, {len(values)} values"
        )
    if query.ndim != 4:
        raise ValueError(f"query must be (N, C, H, W), got shape {tuple(query.shape)}")
    for level, (key, value) in enumerate(zip(keys, values, strict=True)):
        if key.ndim != 4 or key.shape[:2] != query.shape[:2]:
            raise ValueError(f"key {level} must be {tuple(query.shape[:2])} + (h, w), got shape {tuple(key.shape)}")
        if value.ndim != 4 or value.shape[0] != key.shape[0] or value.shape[2:] != key.shape[2:]:
            raise ValueError(
                f"value {level} must be ({key.shape[0]}, D) + {tuple(key.shape[2:])}, got shape {tuple(value.shape)}"
            )


def _check_window(window: int | None, frame: Sequence[int], levels: int) -> None:
    if window is not None and window < 1:
        raise ValueError(f"window must be at least 1 or None, got {window!r}")
    if frame and (window is None or len(frame) != 4 * (levels + 1)):
        raise ValueError(f"frame needs a window and {4 * (levels + 1)} numbers, got {window!r} and {tuple(frame)!r}")
