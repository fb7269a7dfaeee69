"""Recursive chopping against the original's outputs."""

import golden_networks as golden
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.inference.chopping import chop, count_pieces, piece_limit
from panet_plugin.tasks import make_task
from panet_plugin.weights import load_official


@pytest.mark.parametrize(("name", "tolerance"), [("chop_panet_color", 1e-5), ("chop_pa_edsr_x3", 1e-4)])
def test_the_originals_cut(name, tolerance):
    about, stored = golden.description(name), golden.arrays(name)
    network = load_official(golden.state_dict(about["weights_of"]))
    seen = []

    def run(pieces):
        seen.extend(pieces.shape[-2:] for _ in pieces)
        return network(pieces)

    with torch.inference_mode():
        output = chop(run, stored["input"], about["scale"], about["min_size"], about["shave"])
    torch.testing.assert_close(output, stored["output"], rtol=0, atol=tolerance)
    count, pixels = count_pieces(*stored["input"].shape[-2:], about["scale"], about["min_size"])
    assert (len(seen), {height * width for height, width in seen}) == (count, {pixels})
    assert count == 16


def enlarge(scale):
    return lambda images: images.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


@settings(max_examples=40)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    scale=st.sampled_from([1, 2, 3, 4]),
    limit=st.integers(1024, 5000),
)
def test_a_local_function_does_not_notice(height, width, scale, limit):
    images = torch.arange(2 * height * width).view(2, 1, height, width).float()
    sizes = []

    def run(pieces):
        sizes.extend([pieces.shape[-2] * pieces.shape[-1]] * (len(pieces) // 2))
        return enlarge(scale)(pieces)

    output = chop(run, images, scale, limit)
    assert torch.equal(output, enlarge(scale)(images))
    assert (len(sizes), set(sizes)) == (count_pieces(height, width, scale, limit)[0], {sizes[0]})
    assert sizes[0] == count_pieces(height, width, scale, limit)[1]
    assert len(sizes) >= 4
    assert sizes[0] < limit


def test_too_small_a_limit():
    with pytest.raises(ValueError, match="must be at least 1024 pixels, got 1000"):
        chop(enlarge(1), torch.zeros(1, 1, 9, 9), limit=1000)


def test_the_limit_is_that_of_the_task():
    assert piece_limit(None) == piece_limit(make_task("super_resolution")) == 6400
    assert piece_limit(make_task("denoising", gray=True)) == piece_limit(make_task("artifact_reduction")) == 6400
    assert piece_limit(make_task("denoising")) == 6800
