import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.ops import fused, pyramid_attention
from panet_plugin.ops.problem import Problem, Saved
from panet_plugin.ops.pyramid import build_pyramid, key_scale, overlap_divisor, unfold_patches

TOLERANCE = {False: 1e-4, True: 1e-2}  # of the largest value, by whether products are in bfloat16

needs_bfloat16 = pytest.mark.skipif(not fused.has_bfloat16(), reason="the processor does not multiply bfloat16")
either_precision = pytest.mark.parametrize("bfloat16", [False, pytest.param(True, marks=needs_bfloat16)])


@pytest.fixture(scope="module", autouse=True)
def _kernel():
    if not fused.is_available():
        pytest.skip("no C++ compiler")


def attention_with_scales(query, keys, scales, values):
    """Dense attention in which the scales are arguments of their own, to differentiate with respect to them."""
    scores = [
        unfold_patches(query, 3).transpose(1, 2) @ (unfold_patches(k, 3) * s.flatten(2))
        for k, s in zip(keys, scales, strict=True)
    ]
    patches = torch.cat([unfold_patches(v, 3) for v in values], -1)
    pasted = patches @ torch.cat(scores, -1).softmax(-1).transpose(1, 2)
    return F.fold(pasted, query.shape[-2:], 3, padding=1) / overlap_divisor(3)


def random_arguments(batch, key_channels, value_channels, size, sizes, softmax_scale=10.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, key_channels, *size, generator=generator)
    keys = [torch.randn(batch, key_channels, *s, generator=generator) for s in sizes]
    values = [torch.randn(batch, value_channels, *s, generator=generator) for s in sizes]
    return query, keys, [key_scale(k, softmax_scale, 3) for k in keys], values


def assert_close(actual, expected, name, tolerance=TOLERANCE[False]):
    expected = expected.to(actual.dtype)
    scale = expected.abs().max().clamp_min(1e-6).item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale, msg=lambda m: f"{name}: {m}")


def to_bfloat16(tensors):
    return [t.bfloat16().float() for t in tensors]


def make_problem(query, keys, scales, values, bfloat16=False):
    return Problem(query, keys, scales, values, products="bf16" if bfloat16 else "ieee")


def forward(*arguments):
    output, saved = fused.forward(make_problem(*arguments))
    return output, saved.normalizer


def backward(grad, query, keys, scales, values, log_sums, bfloat16=False):
    return fused.backward(grad, make_problem(query, keys, scales, values, bfloat16), Saved(log_sums))


def check_against_oracle(query, keys, scales, values, bfloat16):
    if bfloat16:
        # As the kernel does, and what that does to the scores, the softmax makes arbitrarily large.
        (query,), keys, values = map(to_bfloat16, ([query], keys, values))
    exact = [[t.double().requires_grad_() for t in tensors] for tensors in ([query], keys, scales, values)]
    expected = attention_with_scales(exact[0][0], *exact[1:])
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    expected.backward(grad.double())

    output, log_sums = forward(query, keys, scales, values, bfloat16)
    assert_close(output, expected.detach(), "output", TOLERANCE[bfloat16])
    dquery, *others = backward(grad, query, keys, scales, values, log_sums, bfloat16)
    for name, actual, inputs in zip(("query", "keys", "scales", "values"), ([dquery], *others), exact, strict=True):
        # One scale for all levels: a gradient that cancels to almost nothing on a tiny level has no scale of its own.
        flat = [torch.cat([t.flatten() for t in ts]) for ts in (actual, [i.grad for i in inputs])]
        assert_close(*flat, name, TOLERANCE[bfloat16])


sizes = st.tuples(st.integers(1, 14), st.integers(1, 36))


@either_precision
@settings(max_examples=60)
@given(
    batch=st.integers(1, 3),
    key_channels=st.integers(1, 40),
    value_channels=st.integers(1, 70),
    size=sizes,
    levels=st.lists(sizes, min_size=1, max_size=3),
    softmax_scale=st.sampled_from((0.0, 0.3, 10.0)),
    threads=st.integers(1, 4),
)
def test_agrees_with_dense_in_float64(
    batch, key_channels, value_channels, size, levels, softmax_scale, threads, bfloat16
):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        arguments = random_arguments(batch, key_channels, value_channels, size, levels, softmax_scale)
        check_against_oracle(*arguments, bfloat16)
    finally:
        torch.set_num_threads(before)


@either_precision
@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((1, 1), [(1, 1)]),
        ((1, 40), [(1, 40), (1, 1)]),
        ((40, 1), [(40, 1), (36, 1)]),
        ((3, 400), [(3, 400), (2, 360)]),  # several tiles of queries and blocks of keys
        ((2, 17), [(2, 900)]),
        ((41, 33), [(41, 33), (36, 29), (3, 3)]),  # several strips of rows
    ],
)
def test_agrees_with_dense_at_the_edges_of_its_tiling(size, levels, bfloat16):
    check_against_oracle(*random_arguments(2, 5, 18, size, levels), bfloat16)


@needs_bfloat16
def test_rounds_operands_to_bfloat16_as_pytorch_does():
    query, keys, scales, values = random_arguments(2, 7, 10, (9, 21), [(9, 21), (5, 6)])
    grad = torch.randn(2, 10, 9, 21, generator=torch.Generator().manual_seed(1))

    def run(grad, query, keys, values, bfloat16):
        output, log_sums = forward(query, keys, scales, values, bfloat16)
        gradients = backward(grad, query, keys, scales, values, log_sums, bfloat16)
        return [output, log_sums, gradients[0], *gradients[1], *gradients[2], *gradients[3]]

    (rounded_grad, rounded_query), *rounded = map(to_bfloat16, ([grad, query], keys, values))
    found = run(grad, query, keys, values, True)
    assert all(map(torch.equal, found, run(rounded_grad, rounded_query, *rounded, True)))
    # It rounds what it computes as well: the weights, their gradients.
    single = run(rounded_grad, rounded_query, *rounded, False)
    assert [torch.equal(a, b) for a, b in zip(found, single, strict=True)][2:] == [False] * (len(found) - 2)


def test_is_the_function_of_the_dense_implementation():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 32, 20, 24, generator=generator)
    keys = build_pyramid(torch.randn(1, 32, 20, 24, generator=generator), (1.0, 0.5))
    values = build_pyramid(torch.randn(1, 64, 20, 24, generator=generator), (1.0, 0.5))
    output, _ = forward(query, keys, [key_scale(k, 10.0, 3) for k in keys], values)
    double = [[t.double() for t in level] for level in (keys, values)]
    assert_close(output, pyramid_attention(query.double(), *double, implementation="dense"), "output")


def test_returns_the_base_2_logarithm_of_the_denominator():
    query, keys, scales, values = random_arguments(2, 4, 3, (5, 19), [(5, 19), (3, 4)])
    scores = [
        unfold_patches(query, 3).transpose(1, 2) @ (unfold_patches(k, 3) * s.flatten(2))
        for k, s in zip(keys, scales, strict=True)
    ]
    expected = torch.cat(scores, -1).double().logsumexp(-1).div(torch.tensor(2.0).log()).view(2, 5, 19)
    assert_close(forward(query, keys, scales, values)[1], expected, "log_sums")


def test_all_zero_input_gives_zeros():
    query, keys, _, values = random_arguments(1, 4, 4, (6, 7), [(6, 7), (4, 4)])
    zeros = torch.zeros_like(query), [k * 0 for k in keys], [key_scale(k * 0, 10.0, 3) for k in keys]
    output, log_sums = forward(*zeros, [v * 0 for v in values])
    assert not output.any()
    gradients = backward(torch.ones_like(output), *zeros, values, log_sums)
    assert all(torch.isfinite(t).all() for t in (gradients[0], *gradients[1], *gradients[2], *gradients[3]))


@pytest.mark.parametrize("softmax_scale", [1e4, 1e7, 1e12])
def test_a_huge_softmax_scale_pastes_the_best_patch(softmax_scale):
    arguments = random_arguments(1, 6, 5, (9, 20), [(9, 20), (7, 7)], softmax_scale)
    output, log_sums = forward(*arguments)
    query, keys, _, values = ([t.double() for t in a] if isinstance(a, list) else a.double() for a in arguments)
    assert_close(output, pyramid_attention(query, keys, values, hard=True, implementation="dense"), "output")
    dvalues = backward(torch.ones_like(output), *arguments, log_sums)[3]
    # The output is linear in the values, so their gradient says what the weights of the backward pass were.
    total = sum((v * d).sum() for v, d in zip(arguments[3], dvalues, strict=True))
    assert_close(total, output.sum(), "values")


def test_ties_share_the_weight_at_a_huge_softmax_scale():
    query, keys, _, values = random_arguments(1, 3, 2, (4, 5), [(4, 5)])
    keys, values = [keys[0], keys[0].clone()], [values[0], -values[0]]
    scales = [key_scale(k, 1e9, 3) for k in keys]
    output, log_sums = forward(query, keys, scales, values)
    assert output.abs().max() < 1e-6
    dvalues = backward(torch.ones_like(output), query, keys, scales, values, log_sums)[3]
    assert_close(dvalues[0], dvalues[1], "values")
    _, log_sums = forward(query, keys[:1], scales[:1], values[:1])
    alone = backward(torch.ones_like(output), query, keys[:1], scales[:1], values[:1], log_sums)[3]
    assert_close(dvalues[0], alone[0] / 2, "values")


@either_precision
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["query", "key", "value"])
def test_non_finite_inputs_reach_the_output(bad, where, bfloat16):
    query, keys, scales, values = random_arguments(1, 3, 4, (8, 20), [(8, 20), (6, 5)])
    {"query": query, "key": keys[1], "value": values[0]}[where][0, 1, 3, 4] = bad
    scales = [key_scale(k, 10.0, 3) for k in keys]
    output, log_sums = forward(query, keys, scales, values, bfloat16)
    assert not torch.isfinite(output).all()
    gradients = backward(torch.ones_like(output), query, keys, scales, values, log_sums, bfloat16)
    assert not all(torch.isfinite(t).all() for t in (gradients[0], *gradients[1], *gradients[3]))


@either_precision
def test_is_deterministic(bfloat16):
    arguments = random_arguments(1, 8, 8, (30, 31), [(30, 31), (27, 27)])
    grad = torch.ones(1, 8, 30, 31)

    def run():
        output, log_sums = forward(*arguments, bfloat16)
        gradients = backward(grad, *arguments, log_sums, bfloat16)
        return torch.cat([t.flatten() for t in (output, gradients[0], *gradients[1], *gradients[2], *gradients[3])])

    first = run()
    assert all(torch.equal(first, run()) for _ in range(5))


def test_strided_inputs():
    query, keys, scales, values = random_arguments(2, 4, 6, (7, 18), [(7, 18)])
    expected, _ = forward(query, keys, scales, values)
    last = [[t.to(memory_format=torch.channels_last) for t in level] for level in ([query], keys, values)]
    actual, _ = forward(last[0][0], last[1], scales, last[2])
    assert torch.equal(actual, expected)


def test_refuses_what_it_would_misread():
    query, keys, scales, values = random_arguments(1, 4, 4, (5, 5), [(5, 5)])
    with pytest.raises(ValueError, match="float32"):
        forward(query.double(), keys, scales, values)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 5, 5\)"):
        forward(query, keys, keys, values)
    output, log_sums = forward(query, keys, scales, values)
    with pytest.raises(ValueError, match=r"shape \(1, 4, 5, 5\)"):
        backward(output[..., :4], query, keys, scales, values, log_sums)


def test_without_a_kernel_there_is_one_line_in_the_log(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PANET_PLUGIN_CACHE", str(tmp_path))
    fused._library.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert not fused.is_available()
            assert not fused.has_bfloat16()
        assert [r.getMessage() for r in caplog.records if "no C++ compiler" in r.getMessage()] == [
            "The C++ kernel of pyramid attention is not available: "
            "no C++ compiler found; install g++ or clang++, or set CXX"
        ]
        query, keys, scales, values = random_arguments(1, 1, 1, (2, 2), [(2, 2)])
        with pytest.raises(RuntimeError, match="not available"):
            forward(query, keys, scales, values)
    finally:
        fused._library.cache_clear()
