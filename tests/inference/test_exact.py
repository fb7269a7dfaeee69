"""Pieces of an image give what the whole gives: the reach of networks, cuts, windows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from panet_plugin.archs import PAEDSR, RNAN, PANet, PyramidAttention
from panet_plugin.inference import Restorer, cost
from panet_plugin.inference.exact import find_reach, longest_span, run_pieces, spans
from panet_plugin.inference.plan import SLACK


def panet(window, blocks=2, **attention):
    torch.manual_seed(0)
    network = PANet(1, 8, blocks, attention={"window": window, "levels": 3, **attention}).eval()
    # So that a small network's attention matters.
    for parameter in network.parameters():
        parameter.data *= 1.5
    return network


@given(length=st.integers(1, 200), count=st.integers(1, 20), reach=st.integers(0, 50))
def test_spans_cover_a_side_once(length, count, reach):
    count = min(count, length)
    found = spans(length, count, reach)
    assert [start for start, *_ in found] + [length] == [0] + [stop for _, stop, *_ in found]
    for start, stop, first, last in found:
        assert stop - start in (length // count, length // count + 1)
        assert (first, last) == (max(start - reach, 0), min(stop + reach, length))
    assert longest_span(length, count, reach) == max(last - first for *_, first, last in found)


@torch.inference_mode()
def test_the_reach_of_convolutions_is_exact():
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 7, padding=3))
    assert find_reach(convolutions, convolutions, 1, 1) == 4
    dilated = nn.Conv2d(1, 1, 3, padding=200, dilation=200)
    assert find_reach(dilated, dilated, 1, 1) in (None, 200)
    dilated = nn.Conv2d(1, 1, 5, padding=20, dilation=10)
    assert find_reach(dilated, dilated, 1, 1) == 20
    upscaling = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.PixelShuffle(2))
    assert find_reach(upscaling, upscaling, 1, 2) == 1
    assert find_reach(nn.Identity(), nn.Identity(), 1, 1) == 0
    tall = nn.Conv2d(1, 1, (9, 1), padding=(4, 0))
    assert find_reach(tall, tall, 1, 1) == 4


class Mean(nn.Module):
    """Depends on all of an image."""

    def forward(self, x):
        return x - x.mean((2, 3), keepdim=True)


class Position(nn.Module):
    """Depends on where in an image something lies."""

    def forward(self, x):
        return x + torch.linspace(0, 1, x.shape[-1])


class Clean(nn.Module):
    """Hides what is not a number."""

    def forward(self, x):
        return x.nan_to_num()


@pytest.mark.parametrize(
    "network", [Mean(), Position(), Clean(), PANet(1, 8, 2), RNAN(in_channels=1, mid_channels=8, num_groups=3)]
)
def test_where_there_is_no_reach(network):
    with torch.inference_mode():
        assert find_reach(network.eval(), network, 1, 1) is None


@settings(max_examples=30)
@given(
    data=st.data(),
    window=st.integers(1, 12),
    scales=st.sampled_from([(1,), (1, 0.9, 0.8), (0.5,), (1, 0.3)]),
    ksize=st.sampled_from([1, 3, 5]),
)
def test_nothing_beyond_the_reach_of_a_block_changes_a_pixel(data, window, scales, ksize):
    torch.manual_seed(0)
    block = PyramidAttention(4, scales=scales, ksize=ksize, window=window, implementation="dense").eval()
    height, width = 8, 64
    features = torch.rand(1, 4, height, width)
    column = data.draw(st.integers(0, width - 1))
    changed = features.clone()
    changed[..., column] += 1
    with torch.no_grad():
        difference = (block(changed) - block(features)).abs().amax((0, 1, 2))
    far = (torch.arange(width) - column).abs() > block.reach
    assert (difference[far] < 1e-6).all()


@pytest.mark.parametrize("window", [5, 8])
@pytest.mark.parametrize("grid", [(2, 1), (1, 3), (3, 2)])
def test_pieces_give_the_whole(window, grid):
    network, image = panet(window), torch.rand(2, 1, 70, 61)
    with torch.inference_mode():
        reach = find_reach(network, network, 1, 1)
        assert window + 5 < reach < window + 20
        whole = network(image)
        torch.testing.assert_close(run_pieces(network, image, 1, grid, reach), whole, rtol=0, atol=2e-5)
        # A smaller reach does not: the test could fail.
        assert (run_pieces(network, image, 1, grid, reach // 4) - whole).abs().max() > 1e-4


def test_pieces_of_an_enlarged_image():
    torch.manual_seed(0)
    network = PAEDSR(scale=2, mid_channels=8, num_blocks=2, attention={"window": 6, "levels": 3}).eval()
    image = torch.rand(1, 3, 50, 64)
    with torch.inference_mode():
        reach = find_reach(network, network, 3, 2)
        torch.testing.assert_close(run_pieces(network, image, 2, (2, 2), reach), network(image), rtol=0, atol=2e-5)


@pytest.mark.parametrize("ensemble", [False, True])
def test_a_restorer_cuts_where_memory_asks_for_it_and_nothing_changes(ensemble):
    image = torch.rand(2, 1, 150, 170)
    ample = Restorer(panet(8), mode="auto", ensemble=ensemble)
    half = (ample.plan(150, 170).memory + SLACK) / 2
    scarce = Restorer(panet(8), mode="auto", ensemble=ensemble, max_memory=half)
    plan = scarce.plan(150, 170)
    assert plan.layout.mode == "pieces" and plan.parts > 1 and plan.pixels > 150 * 170
    assert f"{plan.parts} pieces with the same result as the whole" in str(plan)
    assert plan.memory <= half
    seen = []
    restored = scarce.restore_batch(image, progress=seen.append)
    torch.testing.assert_close(restored, ample.restore_batch(image), rtol=0, atol=2e-5)
    assert 150 * 170 * 2 * (8 if ensemble else 1) < sum(seen) <= 2 * plan.pixels


def test_the_window_is_that_of_the_training_unless_another_is_asked_for():
    network = panet(None)
    assert Restorer(network).window is None
    network.trained_patch = 12
    image = torch.rand(1, 1, 40, 40)
    windowed, free = panet(12), panet(None)
    with torch.inference_mode():
        torch.testing.assert_close(Restorer(network).restore_batch(image), windowed(image))
        torch.testing.assert_close(Restorer(network, window=None).restore_batch(image), free(image))
        torch.testing.assert_close(Restorer(network, window=6).restore_batch(image), panet(6)(image))
        # It is the restorer's alone.
        torch.testing.assert_close(network(image), free(image))
    assert [Restorer(network, window=window).window for window in ("trained", None, 6)] == [12, None, 6]
    network = panet(5)
    network.trained_patch = 12
    assert Restorer(network).window == 5
    for window in (0, -1, "all", 2.5):
        with pytest.raises(ValueError, match="window must be"):
            Restorer(network, window=window)


def test_the_cost_of_a_window_is_linear(monkeypatch):
    made = Restorer(panet(8))
    assert made.cost.seconds(2_000_000) == pytest.approx(2 * made.cost.seconds(1_000_000))
    assert made.cost.memory(2_000_000) == pytest.approx(2 * made.cost.memory(1_000_000))
    monkeypatch.setattr(cost, "LARGEST_SIDE", 24)
    assert Restorer(panet(1000)).cost.seconds(1) > 0
    # Without attention, whatever the load of the machine.
    assert Restorer(PANet(mid_channels=4, num_blocks=1, attention=False)).cost.time[1] == 0
