"""Levels and norms, against PyTorch's own operators."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.archs import PyramidAttention
from panet_plugin.ops import bicubic, build_pyramid
from panet_plugin.ops.bicubic import resize_bicubically
from panet_plugin.ops.precision import float32_products
from panet_plugin.ops.pyramid import key_scale, level_size

SIDES = st.integers(1, 40)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@settings(max_examples=50)
@given(size=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES))
def test_resizing_is_interpolation(size, target):
    features = draw(2, 3, *size).requires_grad_()
    expected = F.interpolate(features, size=target, mode="bicubic", align_corners=False)
    found = resize_bicubically(features, target)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    cotangent = draw(*found.shape)
    pair = (torch.autograd.grad(output, features, cotangent)[0] for output in (found, expected))
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


def test_large_features_are_resized_alike(monkeypatch):
    features = draw(1, 1, 30, 20)
    expected = build_pyramid(features, (0.7, 0.3))
    monkeypatch.setattr(bicubic, "LARGEST_MATRIX", 29)
    for found, level in zip(build_pyramid(features, (0.7, 0.3)), expected, strict=True):
        torch.testing.assert_close(found, level, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("deterministic")
def test_deterministic_levels_are_products_of_any_size(monkeypatch):
    """Bicubic interpolation adds its gradient up in any order on CUDA."""
    monkeypatch.setattr(bicubic, "LARGEST_MATRIX", 9)
    monkeypatch.setattr(F, "interpolate", None)
    assert resize_bicubically(draw(1, 1, 12, 12), (7, 7)).shape == (1, 1, 7, 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype):
    features = draw(1, 2, 24, 20).to(dtype)
    (found,) = build_pyramid(features, (0.7,))
    (exact,) = build_pyramid(features.double(), (0.7,))
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() <= torch.finfo(dtype).eps * exact.abs().max()


def test_autocast_does_not_round_levels():
    features = draw(1, 2, 24, 20, dtype=torch.float32)
    (expected,) = build_pyramid(features, (0.7,))
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = build_pyramid(features, (0.7,))
    assert torch.equal(found, expected)


def test_what_was_kept_while_running_serves_training():
    bicubic._kept_matrix.cache_clear()
    features = draw(1, 2, 12, 10)
    with torch.inference_mode():
        build_pyramid(features, (0.6,))
    features.requires_grad_()
    build_pyramid(features, (0.6,))[0].sum().backward()
    assert features.grad.abs().sum() > 0


def test_compiled_for_any_size():
    """A program computes the matrices, too: its gradient is as repeatable."""
    programs = []

    def backend(program, inputs):
        programs.append(program.code)
        return torch._dynamo.lookup_backend("aot_eager")(program, inputs)

    block = PyramidAttention(4, levels=3, implementation="stream")
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend=backend)
    bicubic._kept_matrix.cache_clear()
    for size in ((12, 10), (17, 11)):
        x = draw(1, 4, *size, dtype=torch.float32).requires_grad_()
        output = compiled(x)
        assert bicubic._kept_matrix.cache_info().currsize == 0
        expected = block(x)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        pair = (torch.autograd.grad(y.sum(), x)[0] for y in (output, expected))
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-4)
        bicubic._kept_matrix.cache_clear()
    assert len(programs) == 1 and "interpolate" not in programs[0]


@pytest.mark.parametrize("ksize", [1, 3, 5])
def test_norms_are_those_of_patches(ksize):
    key = draw(2, 3, 8, 7)
    key[0, :, 2:, :] = 0
    key.requires_grad_()
    patches = F.unfold(key, ksize, padding=ksize // 2).square().sum(1).clamp_min(1e-8).sqrt().view(2, 1, 8, 7)
    found, expected = key_scale(key, 10.0, ksize), 10 / patches
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for mine, theirs in zip(
        *(torch.autograd.grad(s.clamp(max=1e3).sum(), key) for s in (found, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


def test_levels_have_the_sizes_of_the_ladder():
    sizes = [tuple(level.shape[-2:]) for level in build_pyramid(draw(1, 1, 90, 48), (1.0, 0.7, 0.1))]
    assert sizes == [(90, 48), level_size(90, 48, 0.7), (9, 4)]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_coarser_products_do_not_round_levels(precision, set_matmul_precision, monkeypatch):
    features = torch.rand(1, 3, 20, 24, dtype=torch.float64)
    expected = resize_bicubically(features, (15, 18))
    set_matmul_precision(precision)
    monkeypatch.setattr(F, "interpolate", None)
    found = resize_bicubically(features.float(), (15, 18))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=1e-5)


def test_what_pytorch_is_allowed(set_matmul_precision):
    assert float32_products("cpu") == float32_products("cuda") == float32_products("meta") == "ieee"
    set_matmul_precision("medium")
    assert float32_products("cpu") == "bf16"
    set_matmul_precision("high")
    assert float32_products("cuda") == "tf32"
