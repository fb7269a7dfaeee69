"""Attention for exported programs: every pixel's patch unfolded, scores of one image row of queries at a time.

Memory is linear in the pixels times the width. :func:`~panet_plugin.ops.pyramid_attention` and
:func:`~panet_plugin.ops.non_local_attention` use it inside :func:`~panet_plugin.ops.exporting.exporting`.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from panet_plugin.ops.dense import paste, scaled_keys
from panet_plugin.ops.exporting import current_loop
from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import one_hot_of_maxima, unfold_patches
from panet_plugin.ops.window import Visible, seen_along


def portable_pyramid_attention(problem: Problem) -> Tensor:
    """Compute pyramid attention ``(N, D, H, W)``; see :func:`~panet_plugin.ops.pyramid_attention`."""
    ksize, size = problem.ksize, problem.size
    queries = unfold_patches(problem.query, ksize).transpose(1, 2).unflatten(1, size).transpose(0, 1)
    patches = torch.cat([unfold_patches(value, ksize) for value in problem.values], -1).transpose(1, 2)
    seen = None if problem.visible is None else _seen(problem.sizes, problem.visible, problem.query.device)
    rows = _attend(queries, scaled_keys(problem), patches, problem.hard, seen)
    return paste(rows.permute(1, 3, 0, 2).flatten(2), problem)


def portable_non_local_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute non-local attention of images; see :func:`~panet_plugin.ops.non_local_attention`."""
    keys, values = (x.permute(2, 0, 3, 1) for x in (key, value))
    output = _give_away(query.flatten(2), keys, values)
    return output.unflatten(2, query.shape[-2:])


def _seen(
    sizes: Sequence[Sequence[int]], visible: Sequence[Visible], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return which rows of all levels each row of queries sees, and which keys each column of queries sees.

    Returned are ``(H, rows)``, the row of every key ``(keys,)``, and ``(W, keys)``: masks of all keys for every row of
    queries would not be linear in the pixels.
    """
    rows, row_of_key, columns, before = [], [], [], 0
    for seen, (height, width) in zip(visible, sizes, strict=True):
        along_rows, along_columns = seen_along(seen, (height, width))
        rows.append(along_rows)
        row_of_key.append((before + torch.arange(height))[:, None].expand(height, width).flatten())
        columns.append(along_columns[:, None].expand(-1, height, width).flatten(1))
        before = before + height
    return torch.cat(rows, 1).to(device), torch.cat(row_of_key).to(device), torch.cat(columns, 1).to(device)


def _attend(
    queries: Tensor, keys: Tensor, values: Tensor, hard: bool, seen: tuple[Tensor, Tensor, Tensor] | None
) -> Tensor:
    """Return rows of results ``(H, N, W, D)`` of queries ``(H, N, W, C)``, keys ``(N, C, L)``, values ``(N, L, D)``."""
    if current_loop() == "script":
        return _scripted(_attend_in_turn)(queries, keys, values, hard, seen)
    from torch._higher_order_ops.scan import scan

    # A scan needs a carried value.
    if seen is None:
        return scan(lambda n, row: (n + 1, _attend_row(row, keys, values, hard, None)), torch.zeros(1), queries)[1]
    rows, row_of_key, columns = seen

    def step(count: Tensor, row: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return count + 1, _attend_row(row[0], keys, values, hard, row[1][row_of_key] & columns)

    return scan(step, torch.zeros(1), (queries, rows))[1]


def _attend_in_turn(
    queries: Tensor, keys: Tensor, values: Tensor, hard: bool, seen: tuple[Tensor, Tensor, Tensor] | None
) -> Tensor:
    results = []
    for i in range(queries.shape[0]):
        if seen is None:
            results.append(_attend_row(queries[i], keys, values, hard, None))
        else:
            results.append(_attend_row(queries[i], keys, values, hard, seen[0][i][seen[1]] & seen[2]))
    return torch.stack(results)


def _attend_row(row: Tensor, keys: Tensor, values: Tensor, hard: bool, seen: Tensor | None) -> Tensor:
    scores = row @ keys
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
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
