"""The CUDA implementation without CUDA, through Triton's interpreter: without a window, precisions, memory."""

from types import SimpleNamespace

import pytest
import torch
from attention_cases import make_inputs
from interpreted import interpret

from panet_plugin.ops import pyramid_attention, triton_backend
from panet_plugin.ops.problem import Problem

pytest.importorskip("triton")

WHOLE = """
import unittest.mock

import torch
from attention_cases import gradients, leaves, make_inputs
from panet_plugin.ops import pyramid_attention, triton_backend

def compare(tolerance, case, name="triton"):
    inputs, exact = make_inputs(**case, dtype=torch.float32), make_inputs(**case)
    output = pyramid_attention(*inputs, softmax_scale=2.0, implementation=name)
    oracle = pyramid_attention(*exact, softmax_scale=2.0, implementation="dense")
    pairs = [(output, oracle), *zip(gradients(output, leaves(*inputs)), gradients(oracle, leaves(*exact)), strict=True)]
    errors = [((mine - theirs).abs().max() / theirs.abs().max()).item() for mine, theirs in pairs]
    assert max(errors) <= tolerance, (case, errors)
    return errors

compare(1e-5, dict(size=(4, 5), scales=(1.0, 0.5), batch=2, channels=3, depth=5))
# Blocks of channels; larger tiles, several of them, rows that are not a multiple. The interpreter rounds no TF32.
torch.backends.cuda.matmul.allow_tf32 = True
compare(1e-5, dict(size=(1, 3), scales=1, channels=40, depth=35))
compare(1e-5, dict(size=(9, 10), scales=(0.9, 0.3)))
# Nor does it multiply bfloat16.
torch.set_float32_matmul_precision("medium")
pack = triton_backend._Call.pack
with unittest.mock.patch.object(triton_backend._Call, "pack", lambda *arguments: pack(*arguments).float()):
    assert 1e-4 < max(compare(5e-2, dict(size=(3, 4), scales=1)))
torch.set_float32_matmul_precision("high")

# Without a backward pass patches are made some rows at a time: with the same result.
inputs = make_inputs((9, 4), 1, dtype=torch.float32)
whole = pyramid_attention(*inputs, implementation="triton").detach()
triton_backend.PATCH_BYTES = 1
with torch.no_grad():
    assert torch.equal(pyramid_attention(*inputs, implementation="triton"), whole)
"""


def test_interpreted_kernels_agree_with_dense():
    interpret(WHOLE)


def make_problem(**options):
    query, keys, values = make_inputs((4, 4), 1, dtype=options.pop("dtype", torch.float32))
    return Problem(query, keys, keys, values, **options)


def test_it_refuses_what_it_cannot_do(monkeypatch):
    with pytest.raises(ValueError, match="'triton': it needs CUDA tensors, got cpu; use 'auto' or 'stream'"):
        pyramid_attention(*make_inputs((4, 4), 1, dtype=torch.float32), implementation="triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_backend.why_not(make_problem()) is None
    assert "got torch.float64" in triton_backend.why_not(make_problem(dtype=torch.float64))
    assert "ksize 5" in triton_backend.why_not(make_problem(ksize=5))
    assert "hard=True" in triton_backend.why_not(make_problem(hard=True))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"capability": (6, 1)}, "compute capability 7.0 or newer, got 6.1"),
        ({"compiler": None}, "needs a C compiler"),
        ({"include": "/nowhere"}, "needs Python.h"),
        ({"spec": None}, "not installed"),
    ],
)
def test_what_triton_lacks_is_named(monkeypatch, tmp_path, change, reason):
    (tmp_path / "Python.h").touch()
    there = {"capability": (8, 0), "compiler": "/usr/bin/gcc", "include": tmp_path, "spec": SimpleNamespace()} | change
    monkeypatch.setattr(triton_backend.torch.cuda, "get_device_capability", lambda device: there["capability"])
    monkeypatch.setattr(triton_backend.shutil, "which", lambda command: there["compiler"])
    monkeypatch.setattr(triton_backend.sysconfig, "get_paths", lambda: {"include": there["include"]})
    monkeypatch.setattr(triton_backend.importlib.util, "find_spec", lambda name: there["spec"])
    found = triton_backend._missing(0)
    assert found is None if reason is None else reason in found


def test_channels_are_few_blocks():
    assert [triton_backend.padded(n) for n in (1, 16, 17, 24, 33, 48, 64, 80, 128, 144, 256)] == [
        *(16, 16, 32, 32, 64, 64, 64, 128, 128, 192, 256)
    ]


def test_triton_3_2_has_small_tiles_of_bfloat16(monkeypatch):
    small = triton_backend.has_small_tiles
    for version, expected in (("3.2.0", True), ("3.3.1", False)):
        monkeypatch.setattr("triton.__version__", version)
        assert small(90, "bf16") == expected and not small(90, "tf32") and small(80, "tf32") and small(100, "bf16")


def test_more_scores_and_tiles_than_32_and_16_bits_count(monkeypatch):
    """Programs are numbered along the axis of the grid that has room for 2^31 of them."""
    launches = []
    monkeypatch.setattr(
        triton_backend._Call, "_launch", lambda self, kernel, programs, *rest, **options: launches.append(programs)
    )
    with torch.device("meta"):
        query = torch.empty(3, 4, 2160, 3840)
        problem = Problem(query, [query], [query[:, :1]], [query], training=True)
        assert problem.scores > 2**47
        output, _ = triton_backend.forward(problem)
    assert output.shape == query.shape
    assert 65535 < max(launches) < 2**31


def test_every_kernel_has_a_tiling_for_every_precision():
    for kernel in ("forward_kernel", "query_kernel", "key_kernel", "value_kernel"):
        for products in ("ieee", "tf32", "bf16"):
            for small in (False, True):
                fixed = triton_backend.constants(kernel, 32, 256, products, small)
                assert fixed["D_BLOCK"] == 64 and fixed["C_BLOCK"] == 32
                assert (fixed["PRECISION"] == "tf32") == (products == "tf32")
