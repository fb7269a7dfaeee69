"""The CUDA kernels without CUDA: through Triton's interpreter, and compiled ahead of time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]

INTERPRETED = """
import torch
from attention_cases import gradients, leaves, make_inputs
from panet_plugin.ops import pyramid_attention

cases = [
    dict(size=(4, 5), scales=(1.0, 0.5), batch=2, channels=3, depth=5),
    dict(size=(1, 3), scales=1, channels=40, depth=35),  # more than one block of channels
    dict(size=(9, 3), scales=(0.9, 0.4), window=4),  # wider than the map on one side only
    dict(size=(2, 9), scales=1, window=3),
]
for case in cases:
    options = dict(softmax_scale=2.0, window=case.pop("window", None))
    inputs, exact = make_inputs(**case, dtype=torch.float32), make_inputs(**case)
    output = pyramid_attention(*inputs, **options, implementation="triton")
    oracle = pyramid_attention(*exact, **options, implementation="dense")
    pairs = [(output, oracle), *zip(gradients(output, leaves(*inputs)), gradients(oracle, leaves(*exact)), strict=True)]
    for mine, theirs in pairs:
        assert (mine - theirs).abs().max() <= 1e-5 * theirs.abs().max(), case

# What no query of a block sees is not even loaded: there a number that is none would spoil the results.
query, keys, values = make_inputs((4, 24), 1, dtype=torch.float32)
with torch.no_grad():
    keys[0][..., 12:] = values[0][..., 12:] = torch.nan
    output = pyramid_attention(query, keys, values, window=5, implementation="triton")
assert output[..., :7].isfinite().all() and output[..., 12:].isnan().all()
"""


def run(*command: str, **environment: str) -> str:
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths} | environment
    result = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_interpreted_kernels_agree_with_dense():
    # The interpreter is chosen when Triton is imported: hence a process of its own.
    run("-c", INTERPRETED, TRITON_INTERPRET="1")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton's compiler is for Linux")
def test_kernels_compile_and_fit(tmp_path):
    report = run(str(ROOT / "tools" / "compile_triton.py"), TRITON_CACHE_DIR=str(tmp_path))
    lines = [line.split() for line in report.splitlines()[1:]]
    assert {(name, target) for name, target, *_ in lines} == {
        (f"{name}_kernel", target)
        for name in ("forward", "mean", "query", "key", "value")
        for target in ("sm_80", "sm_90")
    }
    # A block's shared memory on any GPU; spills of a word or two cost nothing.
    assert all(int(spills) <= 16 and int(shared) <= 48 * 1024 for *_, spills, shared in lines)
