"""Non-local attention against its definition, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_memory import Memory

from panet_plugin.ops import non_local, non_local_attention

SIZE = st.tuples(st.integers(1, 5), st.integers(1, 5))


def dense(query, key, value):
    """The definition with one matrix, written as the original has it: queries x keys, normalized over dim 1."""
    scores = query.flatten(2).transpose(1, 2) @ key.flatten(2)
    output = scores.softmax(dim=1) @ value.flatten(2).transpose(1, 2)
    return output.transpose(1, 2).reshape(*value.shape[:2], *query.shape[2:])


def draw(batch, channels, depth, size, key_size, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, channels, *size), (batch, channels, *key_size), (batch, depth, *key_size)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@settings(max_examples=30)
@given(
    size=SIZE,
    key_size=SIZE,
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    depth=st.integers(1, 3),
    max_scores=st.sampled_from([1, 50, 400, 2**22]),
    gain=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**16),
)
def test_blocks_are_dense(size, key_size, batch, channels, depth, max_scores, gain, seed):
    inputs = draw(batch, channels, depth, size, key_size, seed)
    expected = dense(inputs[0] * gain, *inputs[1:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(non_local, "MAX_SCORES", max_scores)
        actual = non_local_attention(inputs[0] * gain, *inputs[1:])
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
        cotangent = torch.randn_like(expected)
        gradients = torch.autograd.grad(actual, inputs, cotangent)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, inputs, cotangent), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_what_a_value_gives_away_adds_up_to_one():
    query, key, _ = draw(2, 3, 1, (5, 4), (3, 6))
    received = non_local_attention(query, key, torch.ones(2, 1, 3, 6, dtype=torch.float64))
    torch.testing.assert_close(received.sum((1, 2, 3)), torch.full((2,), 18.0, dtype=torch.float64))
    assert received.std() > 0.1  # but not what a query receives


def test_gradients(monkeypatch):
    monkeypatch.setattr(non_local, "MAX_SCORES", 6)
    inputs = draw(1, 2, 1, (2, 2), (1, 2))
    assert torch.autograd.gradcheck(non_local_attention, inputs)
    (slope,) = torch.autograd.grad(non_local_attention(*inputs).square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        slope.sum().backward()


def test_operators_are_registered_properly():
    inputs = [tensor.detach().flatten(2).requires_grad_() for tensor in draw(2, 3, 2, (3, 4), (2, 5))]
    torch.library.opcheck(torch.ops.panet_plugin.non_local_attention.default, inputs)


def peak_bytes(side, block):
    inputs = draw(1, 2, 2, (side, side), (side, side))
    with pytest.MonkeyPatch.context() as patch, Memory() as memory:
        patch.setattr(non_local, "MAX_SCORES", block)
        # What the operators call, since nothing sees into those.
        flat = [tensor.detach().flatten(2) for tensor in inputs]
        output = non_local.forward(*flat)
        non_local.backward(2 * output, *flat)
    return memory.peak


def test_memory_is_bounded():
    """Training needs some blocks of scores and some images, however many blocks there are."""
    image, block = 2 * 8 * 20**2, 4 * 20**2
    assert peak_bytes(20, 20**4) > 20**4 * 8
    assert peak_bytes(20, block) <= 10 * image + 4 * block * 8 < 20**4 * 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    inputs = [tensor.detach().to(dtype) * 300 for tensor in draw(1, 8, 2, (4, 5), (4, 5), dtype=torch.float32)]
    output = non_local_attention(*inputs)
    assert output.dtype == dtype
    torch.testing.assert_close(output, dense(*(tensor.float() for tensor in inputs)).to(dtype))


def test_autocast_does_not_reach_inside():
    inputs = draw(1, 8, 2, (4, 5), (4, 5), dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = non_local_attention(*inputs)
    torch.testing.assert_close(output, dense(*inputs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 2, 3), (1, 2, 3, 3), (1, 2, 3, 3)), r"\(1, 2, 3\) and"),
        (((1, 2, 3, 3), (1, 3, 3, 3), (1, 2, 3, 3)), r"\(1, 3, 3, 3\)"),
        (((1, 2, 3, 3), (1, 2, 3, 3), (1, 2, 3, 4)), r"value must be \(1, D\) \+ \(3, 3\), got shape \(1, 2, 3, 4\)"),
        (((2, 2, 3, 3), (2, 2, 3, 3), (1, 2, 3, 3)), r"value must be \(2, D\)"),
    ],
)
def test_wrong_shapes_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        non_local_attention(*map(torch.zeros, shapes))
