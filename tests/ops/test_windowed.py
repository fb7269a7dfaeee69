"""Attention with a window: every implementation against the masked dense form in float64."""

import pytest
import torch
from attention_cases import gradients, leaves, make_inputs
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.archs import PyramidAttention
from panet_plugin.ops import custom_op, fused, pyramid_attention, stream
from panet_plugin.ops.pyramid import key_scale
from panet_plugin.visualization import attention_weights

needs_compiler = pytest.mark.skipif(not fused.is_available(), reason="no C++ compiler")
IMPLEMENTATIONS = [pytest.param("fused", marks=needs_compiler), "sdpa", "stream"]
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def compare(inputs, doubles, name, tolerance, **options):
    expected = pyramid_attention(*doubles, implementation="dense", **options)
    actual = pyramid_attention(*inputs, implementation=name, **options)
    wanted = (lambda query, keys, values: values) if options.get("hard") else leaves
    pairs = zip(gradients(actual, wanted(*inputs)), gradients(expected, wanted(*doubles)), strict=True)
    for mine, theirs in [(actual, expected), *pairs]:
        assert (mine.double() - theirs).abs().max() <= tolerance * theirs.abs().max().clamp_min(1e-6)


@needs_compiler
@settings(max_examples=60)
@given(
    size=SIZES,
    window=st.integers(1, 45),
    scales=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=3),
    batch=st.integers(1, 2),
    channels=st.sampled_from([1, 3, 16]),
    depth=st.sampled_from([2, 17]),
)
def test_the_kernel_is_dense(size, window, scales, batch, channels, depth):
    scales = [scale for scale in scales if int(min(size) * scale) >= 1] or [1.0]
    shape = {"batch": batch, "channels": channels, "depth": depth}
    doubles, singles = (make_inputs(size, scales, **shape, dtype=dtype) for dtype in (torch.float64, torch.float32))
    compare(singles, doubles, "fused", 1e-4, softmax_scale=2.0, window=window)


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    window=st.integers(1, 18),
    scales=st.lists(st.floats(0.1, 1.0), min_size=1, max_size=3),
    ksize=st.sampled_from([1, 3, 5]),
    hard=st.booleans(),
    block=st.sampled_from([(256, 2048), (1, 1), (6, 20)]),
)
def test_stream_is_dense(size, window, scales, ksize, hard, block):
    scales = [scale for scale in scales if int(min(size) * scale) >= 1] or [1.0]
    inputs = make_inputs(size, scales)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CPU_BLOCK", block)
        compare(inputs, inputs, "stream", 1e-8, ksize=ksize, hard=hard, window=window)


@needs_compiler
@pytest.mark.parametrize("window", [3, 10])
def test_levels_larger_than_the_map(window):
    """Then the queries that see a row of keys are not one run along a diagonal."""
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 3, 20, 18), (1, 3, 47, 40), (1, 4, 47, 40)
    query, key, value = (torch.randn(s, generator=generator).double().requires_grad_() for s in shapes)
    singles = [x.detach().float().requires_grad_() for x in (query, key, value)]
    inputs = singles[0], [singles[1]], [singles[2]]
    compare(inputs, (query, [key], [value]), "fused", 1e-4, softmax_scale=2.0, window=window)


@pytest.mark.parametrize("name", ["auto", *IMPLEMENTATIONS])
def test_a_window_as_large_as_the_map_changes_nothing(name):
    inputs = make_inputs((11, 9), 3, dtype=torch.float32)
    with torch.no_grad():
        whole, windowed = (pyramid_attention(*inputs, implementation=name, window=window) for window in (None, 11))
    assert torch.equal(whole, windowed)


@pytest.mark.parametrize("name", ["dense", *IMPLEMENTATIONS])
def test_wide_on_one_side_only(name):
    inputs = make_inputs((30, 5), 2, dtype=torch.float32)
    with torch.no_grad():
        expected = pyramid_attention(*make_inputs((30, 5), 2), window=9, implementation="dense")
        actual = pyramid_attention(*inputs, window=9, implementation=name)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_part_with_a_margin_is_that_part_of_the_whole(name):
    query, keys, values = make_inputs((40, 20), 1, dtype=torch.float32)
    rows = slice(10, 34)
    part = query[:, :, rows], [keys[0][:, :, rows]], [values[0][:, :, rows]]
    frame = (10, 0, 40, 20) * 2
    with torch.no_grad():
        whole = pyramid_attention(query, keys, values, window=6, implementation=name)
        found = pyramid_attention(*part, window=6, frame=frame, implementation=name)
    # Seven rows: half a window, one for the patch of a key, one for that of a query, and one for what it is pasted on.
    torch.testing.assert_close(found[:, :, 7:-7], whole[:, :, 17:27], rtol=1e-5, atol=1e-5)


@needs_compiler
def test_threads_do_not_change_the_result():
    inputs = make_inputs((50, 70), 3, channels=4, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                results.append(pyramid_attention(*inputs, window=12, implementation="fused"))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_what_is_not_finite_stays_far_from_the_rest():
    query, keys, values = make_inputs((60, 60), 2, dtype=torch.float32)
    with torch.no_grad():
        expected = pyramid_attention(query, keys, values, window=8, implementation="fused")
        for image in (query, *keys, *values):
            image[..., 0, 0] = torch.nan
        spoiled = pyramid_attention(query, keys, values, window=8, implementation="fused")
    far = expected[..., 40:, :]
    torch.testing.assert_close(spoiled[..., 40:, :], far)
    assert spoiled[..., :4, :4].isnan().any()


def test_the_operator_is_registered_properly():
    query, keys, values = make_inputs((7, 6), 2)
    scales = [key_scale(key, 2.0, 3).detach().requires_grad_() for key in keys]
    frame = (0, 0, 7, 6, 0, 0, 7, 6, 0, 0, 6, 5)
    for window, place in ((0, ()), (3, ()), (3, frame)):
        arguments = (query, keys, scales, values, 3, False, "stream", window, place)
        torch.library.opcheck(custom_op.recomputing_pyramid_attention, arguments)


def test_compiles_without_graph_breaks():
    block = PyramidAttention(4, levels=2, window=3)
    x = torch.randn(1, 4, 9, 8, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), block(x))


@pytest.mark.parametrize("hard", [False, True])
def test_rows_of_single_pixels(hard):
    query, keys, _ = (x if isinstance(x, torch.Tensor) else [k.detach() for k in x] for x in make_inputs((9, 7), 2))
    eye = [torch.eye(k[0, 0].numel()).double().view(1, -1, *k.shape[2:]) for k in keys]
    pixels = [(0, 0), (4, 3), (8, 6)]
    rows = attention_weights(query.detach(), keys, pixels, ksize=1, hard=hard, window=4)
    for i, key in enumerate(keys):
        values = [eye[i] if j == i else torch.zeros(1, key[0, 0].numel(), *k.shape[2:]) for j, k in enumerate(keys)]
        whole = pyramid_attention(query, keys, values, ksize=1, hard=hard, window=4, implementation="dense")
        for row, (y, x) in zip(rows[i], pixels, strict=True):
            torch.testing.assert_close(row.flatten(), whole[0, :, y, x].detach())


def test_bad_arguments():
    inputs = make_inputs((6, 6), 1)
    with pytest.raises(ValueError, match="window must be at least 1"):
        pyramid_attention(*inputs, window=0)
    with pytest.raises(ValueError, match="frame needs a window"):
        pyramid_attention(*inputs, frame=(0, 0, 6, 6) * 2)
    with pytest.raises(ValueError, match="window must be at least 1 pixel"):
        PyramidAttention(4, window=0)
