"""The block-wise implementation against the dense one, in float64."""

import pytest
import torch
from attention_cases import gradients, leaves, make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.ops import pyramid_attention, stream

SIZES = st.integers(1, 13)


def compare(inputs, **options):
    expected, actual = (pyramid_attention(*inputs, implementation=name, **options) for name in ("dense", "stream"))
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    hard = options.get("hard", False)
    wanted = inputs[2] if hard else leaves(*inputs)
    for mine, theirs in zip(gradients(actual, wanted), gradients(expected, wanted), strict=True):
        # A slope is softmax_scale times a weight, whose exponent itself is rounded in proportion to it.
        atol = 1e-9 + 1e-14 * options.get("softmax_scale", 10.0) ** 2
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=atol)


@settings(max_examples=100)
@given(
    size=st.tuples(SIZES, SIZES),
    scales=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=4),
    batch=st.integers(1, 2),
    channels=st.integers(1, 3),
    depth=st.integers(1, 3),
    ksize=st.sampled_from([1, 3, 5, 7]),
    softmax_scale=st.sampled_from([0.0, 0.3, 10.0, 1e4]),
    hard=st.booleans(),
    block=st.sampled_from([(256, 2048), (1, 1), (6, 20), (40, 33)]),
    max_scores=st.sampled_from([2**25, 300]),
    seed=st.integers(0, 2**16),
)
def test_stream_is_dense(size, scales, batch, channels, depth, ksize, softmax_scale, hard, block, max_scores, seed):
    scales = [scale for scale in scales if int(min(size) * scale) >= 1] or [1.0]
    inputs = make_inputs(size, scales, batch=batch, channels=channels, depth=depth, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CPU_BLOCK", block)
        patch.setattr(stream, "MAX_SCORES", max_scores)
        compare(inputs, ksize=ksize, softmax_scale=softmax_scale, hard=hard)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (17, 33)])
def test_odd_shapes(size):
    compare(make_inputs(size, 1))


def test_ten_levels():
    compare(make_inputs((11, 12), 10))


def test_tiles_cover_every_shape_within_their_area():
    for height in (1, 2, 5, 16, 17, 100):
        for width in (1, 3, 16, 31, 500):
            for area in (1, 2, 7, 256):
                tall, wide = stream._tile_size(height, width, area)
                assert 1 <= tall <= height and 1 <= wide <= width and tall * wide <= area


def test_gradients_are_those_of_the_function():
    query, keys, values = make_inputs((3, 4), 2, channels=2, depth=2)
    count = len(keys)

    def function(query, *levels):
        return pyramid_attention(query, levels[:count], levels[count:], softmax_scale=2.0, implementation="stream")

    assert torch.autograd.gradcheck(function, leaves(query, keys, values))


def test_memory_of_a_block_does_not_depend_on_the_image(monkeypatch):
    """However large the image, all scores that exist at one time are within the cap."""
    monkeypatch.setattr(stream, "MAX_SCORES", 5000)
    allocated = []
    original = stream._Sample._memory

    def spy(self):
        memory = original(self)
        allocated.append(memory.numel())
        return memory

    monkeypatch.setattr(stream._Sample, "_memory", spy)
    for side, window in ((8, None), (16, None), (32, None), (24, 14)):
        pyramid_attention(*make_inputs((side, side), 2), implementation="stream", window=window)
    assert max(allocated) <= 5000


def test_hard_matching_of_a_constant_image_pastes_every_key():
    image = torch.ones(1, 2, 6, 7, dtype=torch.float64)
    compare_to = pyramid_attention(image, [image], [image], hard=True, implementation="dense")
    assert torch.equal(pyramid_attention(image, [image], [image], hard=True, implementation="stream"), compare_to)


def test_one_bad_pixel_reaches_every_output_and_no_further_than_dense_from_a_query():
    query, keys, values = make_inputs((24, 24), 1)
    with torch.no_grad():
        keys[0][0, 0, 5, 5] = float("nan")
        assert pyramid_attention(query, keys, values, implementation="stream").isnan().all()
        query, keys, values = make_inputs((24, 24), 1)
        query[0, 0, 5, 5] = float("inf")
        output = pyramid_attention(query, keys, values, implementation="stream")
    assert output[..., 4:7, 4:7].isnan().all()
    # The flat layout lets it spread a few pixels more than the patch; never across the image.
    assert output[..., 12:, :].isfinite().all()
