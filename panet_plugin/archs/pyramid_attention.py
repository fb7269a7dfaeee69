"""Pyramid attention as a block with weights."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from panet_plugin.archs.prelu import PReLU
from panet_plugin.ops import IMPLEMENTATIONS, build_pyramid, pyramid_attention
from panet_plugin.ops.part import build_part_pyramid, current_part
from panet_plugin.ops.pyramid import ladder


class PyramidAttention(nn.Module):
    """Pyramid attention block (paper, section 3.2 and figure 3).

    With ``levels=1`` it is patch-based single-scale non-local attention, with ``ksize=1`` pixel-wise matching.

    Args:
        channels: Channels C of the features.
        levels: Number of pyramid levels, 1 to 10, of scales 1, 0.9, 0.8, ...
        reduction: The matched embeddings have ``channels // reduction`` channels.
        ksize: Side of the matched and pasted patches in pixels, odd.
        softmax_scale: Factor of the scores before the softmax over the patches of all levels.
        hard: Paste only the best match instead of the average weighted by the softmax.
        res_scale: Factor of the input, which is added to the attention.
        implementation: One of :data:`panet_plugin.ops.IMPLEMENTATIONS`.
        scales: Factors in (0, 1] of the pyramid's levels, instead of the first ``levels`` of the published ones.
        residual_init: ``"zero"`` multiplies the attention by a learnable factor per channel that is initially zero, so
            that the block starts as the identity; ``None`` is the published block without such a factor.
        window: On every level, a pixel is matched only within a square of this many pixels around it, moved inside at
            the borders; None for all. With ``window=P``, a network trained on patches of side P sees as much of an
            image as in training.

    Raises:
        ValueError: If an argument is outside its range, or ``residual_init="zero"`` and ``res_scale`` is not 1.
    """

    def __init__(
        self,
        channels: int = 64,
        levels: int = 5,
        reduction: int = 2,
        ksize: int = 3,
        softmax_scale: float = 10.0,
        hard: bool = False,
        res_scale: float = 1.0,
        implementation: str = "auto",
        scales: Sequence[float] | None = None,
        residual_init: str | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if reduction < 1 or channels // reduction < 1:
            raise ValueError(f"reduction must be from 1 to channels ({channels}), got {reduction}")
        if ksize < 1 or ksize % 2 == 0:
            raise ValueError(f"ksize must be odd and positive, got {ksize}")
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"implementation must be one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")
        if scales is not None and not (scales and all(0 < scale <= 1 for scale in scales)):
            raise ValueError(f"scales must be factors above 0 and up to 1, got {scales!r}")
        if residual_init not in (None, "zero"):
            raise ValueError(f"residual_init must be 'zero' or None, got {residual_init!r}")
        if residual_init and res_scale != 1:
            raise ValueError(f"residual_init='zero' requires res_scale=1, got {res_scale!r}")
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 pixel or None, got {window!r}")
        self.scales = ladder(levels) if scales is None else tuple(scales)
        self.ksize = ksize
        self.softmax_scale = softmax_scale
        self.hard = hard
        self.res_scale = res_scale
        self.implementation = implementation
        self.window = window
        self.query = _embedding(channels, channels // reduction)
        self.key = _embedding(channels, channels // reduction)
        self.value = _embedding(channels, channels)
        # A factor instead of a zeroed embedding: the frameworks may initialize all convolutions of a network again.
        self.gain = nn.Parameter(torch.zeros(channels, 1, 1)) if residual_init else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``gain * attention(x) + res_scale * x`` for features of shape ``(N, C, H, W)``.

        Inside ``panet_plugin.ops.part.part_of_whole``, they are the features of a part of an image.

        Raises:
            ValueError: For a part if there is no window, or if the features do not have its size.
        """
        part = current_part()
        frame: Sequence[int] = ()
        if part is None:
            pyramid = build_pyramid(x, self.scales)
        elif self.window is None:
            raise ValueError("without a window, every part of an image depends on all of it")
        else:
            pyramid, frame = build_part_pyramid(x, self.scales, part)
        attended = pyramid_attention(
            self.query(x),
            [self.key(level) for level in pyramid],
            [self.value(level) for level in pyramid],
            softmax_scale=self.softmax_scale,
            ksize=self.ksize,
            hard=self.hard,
            implementation=self.implementation,
            window=self.window,
            frame=frame,
        )
        if self.gain is not None:
            attended = self.gain * attended
        return attended + self.res_scale * x

    @property
    def reach(self) -> int | None:
        """Distance in pixels up to which a result pixel depends on the features; None without a window."""
        if self.window is None:
            return None
        half = self.ksize // 2
        # A pixel is pasted by the queries around it. At a border, a query sees keys at the far side of its window, and
        # on a small level even one more, which is a patch of pixels from bicubic kernels.
        return half + self.window + math.ceil((half + 1) / min(self.scales)) + 2

    def extra_repr(self) -> str:
        """Return the settings that the submodules do not show."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return (
            f"scales=({scales}), ksize={self.ksize}, softmax_scale={self.softmax_scale:g}, hard={self.hard}, "
            f"res_scale={self.res_scale:g}, implementation={self.implementation!r}, window={self.window}"
        )


def _embedding(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), PReLU())


@contextmanager
def attention_window(network: nn.Module, window: int | str | None, patch: int | None = None) -> Iterator[None]:
    """Temporarily set the window of all pyramid attention blocks of a network.

    Args:
        network: Any network.
        window: Side of the window in pixels, None for all keys. ``"trained"``: each block's own window or, if it has
            none, the size of the training patches.
        patch: Side of these patches in pixels; None if unknown.

    Raises:
        ValueError: If ``window`` is something else.
    """
    if isinstance(window, str) and window != "trained":
        raise ValueError(f"window must be 'trained', None or at least 1 pixel, got {window!r}")
    blocks = [block for block in network.modules() if isinstance(block, PyramidAttention)]
    before = [block.window for block in blocks]
    try:
        for block in blocks:
            if not isinstance(window, str):
                block.window = window
            elif block.window is None:
                block.window = patch
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            block.window = own
