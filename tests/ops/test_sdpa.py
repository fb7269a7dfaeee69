"""PyTorch's own attention as pyramid attention, against the dense form in float64."""

import pytest
import torch
from attention_cases import gradients, leaves, make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.ops import pyramid_attention

SIZES = st.integers(1, 12)


@settings(max_examples=25)
@given(
    size=st.tuples(SIZES, SIZES),
    scales=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=3),
    batch=st.integers(1, 2),
    channels=st.integers(1, 3),
    depth=st.integers(1, 3),
    ksize=st.sampled_from([1, 3, 5]),
    softmax_scale=st.sampled_from([0.0, 0.3, 10.0]),
    window=st.one_of(st.none(), st.integers(1, 14)),
)
def test_sdpa_is_dense(size, scales, batch, channels, depth, ksize, softmax_scale, window):
    scales = [scale for scale in scales if int(min(size) * scale) >= 1] or [1.0]
    inputs = make_inputs(size, scales, batch=batch, channels=channels, depth=depth)
    options = {"ksize": ksize, "softmax_scale": softmax_scale, "window": window}
    expected, actual = (pyramid_attention(*inputs, implementation=name, **options) for name in ("dense", "sdpa"))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(gradients(actual, leaves(*inputs)), gradients(expected, leaves(*inputs)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_gradients_are_those_of_the_function():
    query, keys, values = make_inputs((2, 3), 1, channels=2, depth=2)
    count = len(keys)

    def function(query, *levels):
        return pyramid_attention(
            query, levels[:count], levels[count:], softmax_scale=2.0, window=3, implementation="sdpa"
        )

    assert torch.autograd.gradcheck(function, leaves(query, keys, values))


def test_it_is_soft():
    with pytest.raises(ValueError, match="'sdpa': it supports only hard=False"):
        pyramid_attention(*make_inputs((4, 4), 1), hard=True, implementation="sdpa")
