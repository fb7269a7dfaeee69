"""The weights of a pyramid attention block for selected pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from panet_plugin.archs import PyramidAttention
from panet_plugin.errors import VisualizationError
from panet_plugin.inference.probe import find_channels
from panet_plugin.ops import build_pyramid
from panet_plugin.ops.pyramid import key_scale, one_hot_of_maxima
from panet_plugin.ops.window import seen_along, visible_keys


def attention_weights(
    query: Tensor,
    keys: Sequence[Tensor],
    pixels: Sequence[tuple[int, int]],
    *,
    softmax_scale: float = 10.0,
    ksize: int = 3,
    hard: bool = False,
    window: int | None = None,
) -> list[Tensor]:
    """Compute selected rows of the attention matrix, exactly and without the others (paper, equation 5).

    The scores of a pixel are the correlation of its patch with every key level, so that the memory per selected pixel
    is linear in the pixels of the image.

    Args:
        query: ``(1, C, H, W)`` embedding of the input.
        keys: One ``(1, C, h, w)`` embedding per pyramid level.
        pixels: Rows and columns of Q pixels in ``query``.
        softmax_scale: See :func:`panet_plugin.ops.pyramid_attention`.
        ksize: Side of the patches in pixels, odd.
        hard: Weight 1 for the best match (all on ties) and 0 for the others, instead of the softmax.
        window: Match only keys in a square of this many pixels around a pixel; None for all.

    Returns:
        One ``(Q, h, w)`` per level: the weights of the patches there. For each pixel all levels together sum to 1,
        unless ``hard``.
    """
    radius = ksize // 2
    padded = F.pad(query, (radius,) * 4)
    patches = torch.cat([padded[..., row : row + ksize, column : column + ksize] for row, column in pixels])
    scores = [F.conv2d(key, patches, padding=radius)[0] * key_scale(key, softmax_scale, ksize)[0] for key in keys]
    if window is not None:
        visible = visible_keys(window, query.shape[-2:], [key.shape[-2:] for key in keys])
        rows, columns = torch.tensor(pixels).unbind(1)
        for level, seen in zip(scores, visible, strict=True):
            masks = seen_along(seen.at(rows, columns), level.shape[1:])
            rows_seen, columns_seen = (mask.to(level.device) for mask in masks)
            level.masked_fill_(~(rows_seen[:, :, None] & columns_seen[:, None]), -torch.inf)
    flat = torch.cat([level.flatten(1) for level in scores], dim=1)
    weights = one_hot_of_maxima(flat) if hard else flat.softmax(1)
    parts = weights.split([level[0].numel() for level in scores], dim=1)
    return [part.view_as(level) for part, level in zip(parts, scores, strict=True)]


@dataclass(frozen=True)
class Match:
    """A patch with which a pixel is matched. Coordinates in the image are relative to the center of the first pixel.

    Attributes:
        level: Index of the pyramid level, 0 for the first.
        row: Row of the patch's center in the level.
        column: Column of the patch's center in the level.
        weight: Weight in the average of patches, 0 to 1.
        scale: Scale of the level relative to the features.
        x: Position of the patch's center in the image.
        y: Position of the patch's center in the image.
        width: Width of the patch in pixels of the image.
        height: Height of the patch in pixels of the image.
    """

    level: int
    row: int
    column: int
    weight: float
    scale: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class View:
    """The attention of a pixel.

    Attributes:
        x: Column of the pixel in the image.
        y: Row of the pixel.
        seen: Number of patches with which the pixel's patch is compared.
        weights: Weights ``(h, w)`` of the patches of every pyramid level, 0 for those that are not compared.
        matches: The matches with the largest weights, in descending order.
        width: Width of the pixel's own patch in pixels of the image.
        height: Height of the pixel's own patch in pixels of the image.
    """

    x: int
    y: int
    seen: int
    weights: list[NDArray[np.floating]]
    matches: list[Match]
    width: float
    height: float


class AttentionProbe:
    """The attention of one block of a network within one image.

    The network runs until it calls the block for the first time; then the weights of any pixel can be computed, in time
    and memory linear in the pixels of the image.

    Args:
        network: Takes ``(1, C, H, W)`` in [0, 1].
        image: ``(H, W, C)``, 8 bits.
        block: Path of the block in ``network.named_modules()``; optional if there is only one.

    Attributes:
        image: The image.
        block: Path of the block.
        scales: Factors of the pyramid's levels.
        positions: Number of patches of every level.
        ksize: Side of the patches in pixels of the features.
        hard: Whether the block uses only the best match.
        window: Side of the square, in pixels of the features, in which a pixel is matched; None for the whole image.
        stride: Rows and columns of the image per pixel of the features.
        extent: Width and height in pixels of the image that the block's features cover; larger than the image where
            the network pads it.

    Raises:
        VisualizationError: If there is no such block, or several and none is named (the message lists them), or if the
            network does not accept the image or does not call the block.
    """

    def __init__(self, network: nn.Module, image: NDArray[np.uint8], block: str | None = None) -> None:
        self.image = image
        self.block, attention = _find_block(network, block)
        self.scales, self.ksize, self.hard = attention.scales, attention.ksize, attention.hard
        self.window, self._softmax_scale = attention.window, attention.softmax_scale
        with torch.no_grad():
            features = _input_of(attention, self.block, network.eval(), image)
            query = attention.query(features)
            try:
                keys = [attention.key(level) for level in build_pyramid(features, attention.scales)]
            except ValueError as error:
                raise VisualizationError(f"{self.block}: {error}") from error
        # As in pyramid_attention: half precision is not sufficient.
        dtype = torch.promote_types(query.dtype, torch.float32)
        self._query, self._keys = query.to(dtype), [key.to(dtype) for key in keys]
        self.positions = [key[0, 0].numel() for key in self._keys]
        self.stride = tuple(map(_stride, image.shape[:2], query.shape[-2:]))
        self.extent = (query.shape[-1] * self.stride[1], query.shape[-2] * self.stride[0])

    @torch.no_grad()
    def views(self, points: Sequence[tuple[int, int]], matches: int = 8) -> list[View]:
        """Return the attention of pixels, computed together in memory linear in their number.

        Args:
            points: Column x and row y of each pixel in the image.
            matches: Maximum number of matches to list, all with nonzero weights.

        Raises:
            VisualizationError: If a pixel is outside the image.
        """
        height, width = self.image.shape[:2]
        for x, y in points:
            if not (0 <= x < width and 0 <= y < height):
                raise VisualizationError(
                    f"pixel ({x}, {y}) is outside the image: expected x from 0 to {width - 1} and y from 0 to "
                    f"{height - 1}"
                )
        if not points:
            return []
        # A pixel without features, if these are smaller than a part of the image, uses those of its neighbor.
        pixels = [
            tuple(min(int((at + 0.5) / stride), side - 1) for at, stride, side in zip(*axes, strict=True))
            for axes in (((y, x), self.stride, self._query.shape[-2:]) for x, y in points)
        ]
        settings: dict[str, Any] = {"softmax_scale": self._softmax_scale, "ksize": self.ksize, "hard": self.hard}
        settings["window"] = self.window
        weights = [level.cpu() for level in attention_weights(self._query, self._keys, pixels, **settings)]
        size = self.ksize * self.stride[1], self.ksize * self.stride[0]
        return [
            View(x, y, seen, rows := [level[index].numpy() for level in weights], self._best(rows, matches), *size)
            for index, ((x, y), seen) in enumerate(zip(points, self._seen(pixels), strict=True))
        ]

    def _seen(self, pixels: Sequence[tuple[int, int]]) -> list[int]:
        """Return the number of patches with which each pixel of the features, given by row and column, is compared."""
        if self.window is None:
            return [sum(self.positions)] * len(pixels)
        visible = visible_keys(self.window, self._query.shape[-2:], [key.shape[-2:] for key in self._keys])
        rows, columns = torch.tensor(pixels).unbind(1)
        counts = [[stop - first for first, stop in seen.at(rows, columns)] for seen in visible]
        return torch.stack([tall * wide for tall, wide in counts]).sum(0).tolist()

    def match(self, level: int, row: int, column: int, weight: float) -> Match:
        """Return the match with the patch around one position of a level."""
        sides = self._keys[level].shape[-2:]
        # Pixels of the image per pixel of the level: levels are sampled with the ratio of the sizes.
        steps = [
            stride * whole / side
            for stride, whole, side in zip(self.stride, self._query.shape[-2:], sides, strict=True)
        ]
        y, x = ((at + 0.5) * step - 0.5 for at, step in zip((row, column), steps, strict=True))
        height, width = (self.ksize * step for step in steps)
        return Match(level, row, column, weight, self.scales[level], x, y, width, height)

    def _best(self, weights: list[NDArray[np.floating]], count: int) -> list[Match]:
        flat = torch.cat([torch.from_numpy(level).flatten() for level in weights])
        best = flat.topk(min(count, int(flat.count_nonzero())))
        starts = np.cumsum([0, *(level.size for level in weights)])
        found = []
        for weight, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            level = int(np.searchsorted(starts, index, side="right")) - 1
            row, column = divmod(index - int(starts[level]), weights[level].shape[1])
            found.append(self.match(level, row, column, weight))
        return found


@torch.inference_mode()
def takes_gray(network: nn.Module) -> bool:
    """Return whether a network takes gray images."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    return find_channels(lambda images: network(images.to(device))) == 1


def _find_block(network: nn.Module, path: str | None) -> tuple[str, PyramidAttention]:
    blocks = {name: module for name, module in network.named_modules() if isinstance(module, PyramidAttention)}
    if not blocks:
        raise VisualizationError(f"{type(network).__name__} has no pyramid attention")
    if path is None and len(blocks) == 1:
        return next(iter(blocks.items()))
    if path is None or path not in blocks:
        problem = "has several pyramid attention blocks" if path is None else f"has no pyramid attention {path!r}"
        raise VisualizationError(f"{type(network).__name__} {problem}: choose one of {', '.join(blocks)}")
    return path, blocks[path]


class _CaughtError(Exception):
    """Ends a network's run when its block receives its input: the rest is not needed."""


def _input_of(block: nn.Module, path: str, network: nn.Module, image: NDArray[np.uint8]) -> Tensor:
    caught = []

    def catch(module: nn.Module, args: tuple[Tensor]) -> None:
        caught.append(args[0])
        raise _CaughtError

    like = next(block.parameters())
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].to(like.device, like.dtype) / 255
    hook = block.register_forward_pre_hook(catch)
    try:
        network(batch)
    except _CaughtError:
        return caught[0]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        shape = "x".join(map(str, image.shape))
        raise VisualizationError(f"{type(network).__name__} does not accept this image ({shape}): {error}") from error
    finally:
        hook.remove()
    raise VisualizationError(f"{type(network).__name__} does not call its block {path}")


def _stride(image: int, features: int) -> float:
    """Return the number of image pixels per pixel of the features: an integer, or 1 / an integer.

    Not the plain ratio, since networks may pad images at the right and the bottom.
    """
    return float(round(image / features)) if image >= features else 1 / round(features / image)
