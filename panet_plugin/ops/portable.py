"""Attention for exported programs: every pixel's patch unfolded, scores of one image row of queries at a time.

Memory is linear in the pixels times the width. Inside :func:`~panet_plugin.ops.exporting.exporting`
:func:`~panet_plugin.ops.pyramid_attention` and :func:`~panet_plugin.ops.non_local_attention` come here.
"""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from panet_plugin.ops.exporting import current_loop
from panet_plugin.ops.pyramid import key_scale, one_hot_of_maxima, overlap_divisor, unfold_patches


def portable_pyramid_attention(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], softmax_scale: float, ksize: int, hard: bool
) -> Tensor:
    """Compute pyramid attention; see :func:`~panet_plugin.ops.pyramid_attention`."""
    size = query.shape[-2:]
    queries = unfold_patches(query, ksize).transpose(1, 2).unflatten(1, size).transpose(0, 1)
    scaled = [unfold_patches(key, ksize) * key_scale(key, softmax_scale, ksize).flatten(2) for key in keys]
    patches = torch.cat([unfold_patches(value, ksize) for value in values], -1).transpose(1, 2)
    rows = _attend(queries, torch.cat(scaled, -1), patches, hard)
    pasted = F.fold(rows.permute(1, 3, 0, 2).flatten(2), size, ksize, padding=ksize // 2)
    return pasted / overlap_divisor(ksize)


def portable_non_local_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute non-local attention of images; see :func:`~panet_plugin.ops.non_local_attention`."""
    keys, values = (x.permute(2, 0, 3, 1) for x in (key, value))
    output = _give_away(query.flatten(2), keys, values)
    return output.unflatten(2, query.shape[-2:])


def _attend(queries: Tensor, keys: Tensor, values: Tensor, hard: bool) -> Tensor:
    """Return rows of results ``(H, N, W, D)`` of queries ``(H, N, W, C)``, keys ``(N, C, L)``, values ``(N, L, D)``."""
    if current_loop() == "script":
        return _scripted(_attend_in_turn)(queries, keys, values, hard)
    from torch._higher_order_ops.scan import scan

    def step(count: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        return count + 1, _attend_row(row, keys, values, hard)

    # A scan must carry something along.
    return scan(step, torch.zeros(1), queries)[1]


def _attend_in_turn(queries: Tensor, keys: Tensor, values: Tensor, hard: bool) -> Tensor:
    rows = []
    for row in queries:
        rows.append(_attend_row(row, keys, values, hard))
    return torch.stack(rows)


def _attend_row(row: Tensor, keys: Tensor, values: Tensor, hard: bool) -> Tensor:
    scores = row @ keys
    weights = one_hot_of_maxima(scores) if hard else scores.softmax(-1)
    return weights @ values


def _give_away(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return ``(N, D, L)`` of queries ``(N, C, L)``, and keys ``(h, N, w, C)`` and values ``(h, N, w, D)`` by rows."""
    output = query.new_zeros(query.shape[0], values.shape[-1], query.shape[-1])
    if current_loop() == "script":
        return _scripted(_give_away_in_turn)(output, query, keys, values)
    from torch._higher_order_ops.scan import scan

    def step(output: Tensor, row: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return _give_away_row(output, query, *row), row[0].new_zeros(1)

    return scan(step, output, (keys, values))[0]


def _give_away_in_turn(output: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    for i in range(keys.shape[0]):
        output = _give_away_row(output, query, keys[i], values[i])
    return output


def _give_away_row(output: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return output + value.transpose(1, 2) @ (key @ query).softmax(-1)


_scripted = cache(torch.jit.script)
