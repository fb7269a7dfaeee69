"""The CUDA kernels without CUDA: windows, through Triton's interpreter, and compilation ahead of time."""

import os
import subprocess
import sys

import pytest
from interpreted import ROOT, interpret

pytest.importorskip("triton")

WINDOWED = """
import torch
from attention_cases import gradients, leaves, make_inputs
from panet_plugin.ops import pyramid_attention

torch.backends.cuda.matmul.allow_tf32 = True  # Larger tiles; the interpreter rounds nothing.
frame = (10, 0, 40, 9, 10, 0, 40, 9)
cases = [
    dict(size=(9, 3), scales=(0.9, 0.4), window=4),  # wider than the map on one side only
    dict(size=(19, 10), scales=(1.0, 0.1), window=3),  # several tiles; a level so small that queries see the next key
    dict(size=(9, 9), scales=1, window=6, frame=frame),
]
for case in cases:
    options = dict(softmax_scale=2.0, window=case.pop("window"), frame=case.pop("frame", ()))
    inputs, exact = make_inputs(**case, dtype=torch.float32), make_inputs(**case)
    output = pyramid_attention(*inputs, **options, implementation="triton")
    oracle = pyramid_attention(*exact, **options, implementation="dense")
    pairs = [(output, oracle), *zip(gradients(output, leaves(*inputs)), gradients(oracle, leaves(*exact)), strict=True)]
    for mine, theirs in pairs:
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max(), case

# What no query of a tile sees is not even loaded: there a number that is none would spoil the results.
query, keys, values = make_inputs((3, 24), 1, dtype=torch.float32)
with torch.no_grad():
    keys[0][..., 16:] = values[0][..., 16:] = torch.nan
    output = pyramid_attention(query, keys, values, window=5, implementation="triton")
assert output[..., :7].isfinite().all() and output[..., 16:].isnan().all()
"""

#: The kernels' own ranges beside the definition of the window, for queries and for keys, of wholes and of parts.
RANGES = """
import random
import torch
import triton
import triton.language as tl
from panet_plugin.ops import triton_kernels as kernels
from panet_plugin.ops.window import Span, visible_range

@triton.jit
def ranges(
    seen, turned, between, count, first, whole, window, keys, first_key, level, Q: tl.constexpr, K: tl.constexpr
):
    query, key = tl.arange(0, Q), tl.arange(0, K)
    begin, stop = kernels._keys_seen(query, first, whole, window, first_key, keys, level)
    to = query[:, None] * K + key[None, :]
    mask = (query < count)[:, None] & (key < keys)[None, :]
    tl.store(seen + to, (begin[:, None] <= key[None, :]) & (key[None, :] < stop[:, None]), mask)
    low, high = kernels._starts_seeing(key, first_key, keys, level, whole, window)
    start = kernels._window_start(query, first, whole, window)
    tl.store(turned + to, (low[None, :] < start[:, None]) & (start[:, None] <= high[None, :]), mask)
    begin, stop = kernels._queries_between(low, high, first, whole, window, count)
    tl.store(between + to, (begin[None, :] <= query[:, None]) & (query[:, None] < stop[None, :]), mask)

random.seed(0)
for _ in range(60):
    whole, level, window = random.randint(1, 16), random.randint(1, 20), random.randint(1, 18)
    first, first_key = (random.randrange(n) * random.randint(0, 1) for n in (whole, level))
    count, keys = random.randint(1, whole - first), random.randint(1, level - first_key)
    if random.random() < 0.5:
        first = first_key = 0
        count, keys = whole, level
    begin, stop = visible_range(Span(first, count, whole), Span(first_key, keys, level), window)
    key = torch.arange(keys)
    expected = (begin[:, None] <= key) & (key < stop[:, None])
    found = [torch.zeros(16, 32, dtype=torch.bool) for _ in range(3)]
    ranges[(1,)](*found, count, first, whole, window, keys, first_key, level, 16, 32)
    for name, matrix in zip(("seen", "turned", "between"), found):
        case = name, count, first, whole, window, keys, first_key, level
        assert torch.equal(matrix[:count, :keys], expected), case
"""


def test_interpreted_kernels_with_a_window_agree_with_dense():
    interpret(WINDOWED)


def test_ranges_are_those_of_the_window(tmp_path):
    # Triton reads a kernel's source from its file.
    (tmp_path / "ranges.py").write_text(RANGES)
    interpret(f"import runpy; runpy.run_path({str(tmp_path / 'ranges.py')!r})")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton's compiler is for Linux")
def test_kernels_compile_and_fit(tmp_path):
    # Of a published block, and of the widest: only the channels of a block of sums make another kernel.
    options = ["--arch", "80", "90", "100", "--products", "bf16", "--kernels", "forward", "key", "--depth", "256"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, ROOT / "tools" / "compile_triton.py", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(name, target) for name, _, target, *_ in lines] == [
        (name, f"sm_{arch}") for arch in (80, 90, 100) for name in ("forward", "key")
    ]
    for *_, spills, shared, instructions, _ in lines:
        # Shared memory of any GPU. Where tiles do not fit at all, Triton compiles a kernel that does nothing.
        assert int(spills) <= 64 and int(shared) <= 48 * 1024 and int(instructions) > 0
