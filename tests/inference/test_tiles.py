"""Tiles: what they cover, what they count for, and that no seam is seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from panet_plugin.archs import PAEDSR
from panet_plugin.inference import Restorer
from panet_plugin.inference.tiles import cover


@st.composite
def axes(draw):
    overlap = draw(st.integers(0, 20))
    tile = draw(st.integers(2 * overlap + 1, 2 * overlap + 40))
    return draw(st.integers(1, 300)), tile, overlap


@settings(max_examples=100)
@given(axes=axes(), scale=st.sampled_from([1, 2, 3, 4]))
def test_weights_add_up_to_one_and_reach_over_the_overlap(axes, scale):
    length, tile, overlap = axes
    axis = cover(*axes)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.tile == length
    assert axis.tile == min(tile, length)
    assert all(b - a <= tile - 2 * overlap for a, b in zip(axis.starts, axis.starts[1:], strict=False))
    weights = axis.weights(scale)
    assert weights.shape == (len(axis.starts), axis.tile * scale)
    assert weights.min() >= 0
    total = torch.zeros(length * scale)
    for start, weight in zip(axis.starts, weights, strict=True):
        total[start * scale : start * scale + len(weight)] += weight
    torch.testing.assert_close(total, torch.ones(length * scale), rtol=0, atol=1e-6)
    # What a tile sees without its surroundings counts for nothing; what it alone sees, for all.
    margin = overlap * scale // 2
    if margin and len(axis.starts) > 1:
        assert weights[0, -margin:].max() == weights[-1, :margin].max() == 0
    assert np.abs(np.diff(weights.numpy(), axis=1)).max(initial=0) <= 1 / max(1, overlap * scale) + 1e-6 or overlap == 0


@pytest.mark.parametrize(("tile", "overlap"), [(8, 4), (8, -1), (0, 0)])
def test_impossible_tiles(tile, overlap):
    with pytest.raises(ValueError, match=f"a tile of {tile} and an overlap of {overlap}"):
        cover(20, tile, overlap)
    with pytest.raises(ValueError, match="a tile must be longer"):
        Restorer(nn.Identity(), tile=tile, overlap=overlap)


class Local(nn.Module):
    """A network whose receptive field is 2 * radius + 1 pixels wide; it enlarges."""

    def __init__(self, radius, scale):
        super().__init__()
        torch.manual_seed(radius)
        self.scale = scale
        self.blur = nn.Conv2d(1, 1, 2 * radius + 1, padding=radius)
        self.enlarge = nn.Conv2d(1, scale**2, 1)

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.enlarge(self.blur(x).tanh()), self.scale)


@settings(max_examples=25)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    radius=st.integers(0, 3),
    more=st.integers(0, 4),
    room=st.integers(5, 12),
    scale=st.sampled_from([1, 2, 3]),
    batch=st.integers(1, 5),
)
def test_a_local_network_gives_the_same_as_on_the_whole_image(height, width, radius, more, room, scale, batch):
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0))
    network, overlap = Local(radius, scale), 2 * radius + more
    tiles = Restorer(network, mode="tiles", tile=2 * overlap + room, overlap=overlap, batch=batch)
    expected = Restorer(network).restore_batch(image)
    assert expected.shape == (1, 1, height * scale, width * scale)
    torch.testing.assert_close(tiles.restore_batch(image), expected, rtol=0, atol=2e-6)


def test_too_little_overlap_is_noticed():
    image = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    tiles = Restorer(Local(3, 1), mode="tiles", tile=16, overlap=2)
    assert (tiles.restore_batch(image) - Restorer(Local(3, 1)).restore_batch(image)).abs().max() > 0.01


def test_no_seam_is_seen_with_attention_over_the_whole():
    """What tiles change, they change gradually: nowhere does the change jump as it does without blending."""
    torch.manual_seed(0)
    network = PAEDSR(2, mid_channels=8, num_blocks=2, res_scale=1, attention={"reduction": 2})
    image = torch.rand(1, 3, 40, 72, generator=torch.Generator().manual_seed(1))
    expected = Restorer(network).restore_batch(image)

    def change(overlap):
        """Return the largest change, and the largest step of it from one column to the next around the seam."""
        restorer = Restorer(network, mode="tiles", tile=40 + overlap, overlap=overlap)
        difference = (restorer.restore_batch(image) - expected)[0]
        seam = difference[..., 72 - 40 : 72 + 40]
        return difference.abs().max(), seam.diff(dim=-1).abs().mean(dim=(0, 1)).max()

    feathered, abrupt = change(12), change(0)
    assert 0 < feathered[0] < 0.1 * expected.std()
    assert feathered[1] < 0.4 * abrupt[1]
    assert feathered[1] < 0.01 * expected.std()
