"""What is chosen, and what it is estimated to cost."""

import re
import time

import pytest
import torch
from torch import nn

from panet_plugin.archs import PANet
from panet_plugin.inference import Restorer
from panet_plugin.inference.cost import SCRATCH, Cost, PeakMemory, _fit, free_memory, measure
from panet_plugin.inference.plan import SLACK, Budget, Buffers, TooLargeError, Way, duration, make_plan, size
from panet_plugin.inference.probe import Traits, probe


def restorer(time=(1e-6, 1e-10), space=(1000, 0), network=None, reach=None, **options):
    """Return a restorer of a network with a known cost and reach."""
    made = Restorer(network or nn.Identity(), **{"mode": "auto", "max_memory": 1e9 + SLACK, **options})
    made.cost, made.reach = Cost(time, space), reach
    return made


def test_whole_where_it_is_affordable():
    plan = restorer().plan(500, 400)
    assert (plan.layout.mode, plan.parts, plan.pixels) == ("whole", 1, 200_000)
    assert plan.seconds == pytest.approx(200_000e-6 + 200_000**2 * 1e-10)
    # Image and result, and twice what the network is given, with what it returns.
    assert plan.memory == pytest.approx(SLACK + 200_000 * 1000 + 200_000 * 3 * 4 * (2 + 3))
    assert plan.layout.batch == 4
    assert str(plan) == "whole, about 4.2 s and 244 MB each (the limits are 60 s and 1.0 GB)"


def test_tiles_where_time_or_memory_does_not_allow_it():
    slow = restorer(tile=192, overlap=16).plan(1000, 1000)
    assert (slow.layout.mode, slow.layout.tile, slow.parts) == ("tiles", 192, 49)
    assert slow.pixels == 49 * 192**2
    assert slow.seconds == pytest.approx(49 * (192**2 * 1e-6 + 192**4 * 1e-10))
    assert "the whole image would take about 101 s and 1.1 GB, the limits are 60 s and 1.0 GB" in str(slow)
    assert restorer(max_seconds=102, max_memory=2e9).plan(1000, 1000).layout.mode == "whole"
    assert restorer(max_seconds=102, max_memory=5e8).plan(1000, 1000).layout.mode == "tiles"
    # Slow, but tiles would not be faster.
    assert restorer(time=(1e-3, 0)).plan(500, 500).layout.mode == "whole"


def test_tiles_fit_into_the_memory():
    plan = restorer(max_memory=40e6 + SLACK).plan(500, 500)
    assert plan.layout.mode == "tiles"

    def needed(side):
        """Image and result, the tile that is restored, and two rows of blended ones."""
        return SLACK + 3 * 4 * (2 * 500 * 500 + 3 * side**2 + 2 * side * 500) + side**2 * 1000

    side = plan.layout.tile
    assert 32 < side < 192
    assert plan.memory == needed(side) <= 40e6 + SLACK < needed(side + 8)
    assert plan.layout.batch == 1
    # What is said to be enough is enough, and no less is.
    with pytest.raises(TooLargeError, match=r"it requires at least \d+M of memory, the limit is 20M") as refused:
        restorer(max_memory=20e6).plan(500, 500)
    least = float(re.search(r"(\d+)M", str(refused.value))[1]) * 1e6
    assert restorer(max_memory=least).plan(500, 500).layout.tile == 32
    with pytest.raises(TooLargeError):
        restorer(max_memory=least - 1e6).plan(500, 500)


def test_what_images_take_themselves():
    """They are read, restored and written one after the other; several at once are held at once."""
    made = restorer(space=(10, 0), max_memory=1e9)
    for field in ("reading", "writing"):
        buffers = Buffers(0, 1e6, 0)
        assert made.plan(100, 100, buffers._replace(**{field: 9e8})).memory == SLACK + 9e8
        with pytest.raises(TooLargeError, match="it requires at least 1032M of memory, the limit is 1000M"):
            made.plan(100, 100, buffers._replace(**{field: 1e9}))
    assert made.plan(100, 100, Buffers(0, 3e8, 0)).layout.batch == 3
    # Those that are asked for as a whole are restored, unless a limit is given.
    assert restorer(mode="whole", max_memory=None).plan(100, 100, Buffers(1e18, 0, 0)).layout.mode == "whole"
    for mode in ("whole", "chop", "tiles", "auto"):
        with pytest.raises(TooLargeError):
            restorer(mode=mode).plan(100, 100, Buffers(1e18, 0, 0))


def test_a_device_with_a_memory_of_its_own():
    cost, layout = Cost((0, 0), (1000, 0)), Way("auto", 192, 16, 6400, 8)

    def plan(memory, images, held=5e8):
        budget, buffers = Budget(60, memory, images), Buffers(0, held, 0)
        return make_plan(500, 500, layout, cost, Traits(), budget, 3, 1, buffers, lambda: None)

    assert plan(2.5e8, 6e8).layout.mode == "whole"
    assert plan(2.4e8, 6e8).layout.mode == "tiles"
    with pytest.raises(TooLargeError, match="the limit is 500M"):
        plan(2.5e8, 5e8)
    with pytest.raises(TooLargeError, match="it requires at least 2M of memory, the limit is 1M"):
        plan(1e6, 6e8)


def test_pieces_that_give_the_whole_come_before_tiles():
    limit = 4e8 + SLACK
    plan = restorer(time=(1e-6, 0), reach=40, max_memory=limit).plan(1000, 1000)
    assert (plan.layout.mode, plan.layout.grid, plan.layout.reach, plan.parts) == ("pieces", (2, 2), 40, 4)
    assert plan.pixels == 4 * 540 * 540
    assert plan.memory == SLACK + 3 * 4 * (2 * 1000 * 1000 + 3 * 540 * 540) + 540 * 540 * 1000
    assert "4 pieces with the same result as the whole, about 1.2 s and 358 MB each; the whole image would take" in str(
        plan
    )
    assert restorer(time=(1e-6, 0), reach=40, max_memory=limit).plan(100, 6000).layout.grid == (1, 2)
    # Where pieces would see much more than themselves there are tiles; where the whole fits, it is not cut.
    assert restorer(time=(1e-6, 0), reach=300, max_memory=2e8).plan(1000, 1000).layout.mode == "tiles"
    assert restorer(time=(1e-6, 0), reach=40, max_memory=2e9).plan(1000, 1000).layout.mode == "whole"
    # Nobody wants to wait for a quadratic cost.
    assert restorer(reach=40, max_memory=4e8).plan(1000, 1000).layout.mode == "tiles"


def test_what_is_asked_for_is_done():
    assert restorer(mode="whole", max_seconds=0, max_memory=2e9).plan(1000, 1000).layout.mode == "whole"
    assert restorer(mode="tiles", tile=50, overlap=5).plan(20, 90).layout[:3] == ("tiles", 50, 5)
    assert restorer(mode="tiles", tile=50, overlap=5).plan(20, 90).pixels == 2 * 20 * 50
    plan = restorer(mode="chop").plan(169, 152)
    assert (plan.layout.mode, plan.parts, plan.pixels) == ("chop", 16, 16 * 57 * 53)
    assert "chopped into 16 pieces as by the original" in str(plan)


def test_eight_views_take_eight_times_as_long():
    one, eight = restorer().plan(100, 100), restorer(ensemble=True).plan(100, 100)
    assert (eight.seconds, eight.pixels) == (pytest.approx(8 * one.seconds), 8 * one.pixels)


def test_a_plan_is_what_is_done():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x

    made = restorer(network=Spy(), mode="tiles", tile=40, overlap=4, batch=2)
    plan = made.plan(50, 70)
    counted = []
    seen.clear()
    made.restore_batch(torch.rand(1, 3, 50, 70), progress=counted.append)
    assert seen == [(2, 3, 40, 40)] * 2
    assert sum(counted) == plan.pixels == 4 * 40 * 40


def test_costs_are_measured(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run(images):
        pixels = images.shape[-1] * images.shape[-2]
        scratch = [images.repeat(1, 10, 1, 1) for _ in range(2)]
        del scratch
        now[0] += 4e-6 * pixels + 2e-9 * pixels**2
        return images

    cost = measure(run, channels=3)
    assert cost.seconds(256**2) == pytest.approx(4e-6 * 256**2 + 2e-9 * 256**4)
    assert cost.memory(1000) == pytest.approx(SCRATCH * 1000 * 3 * 4 * 20, rel=0.01)


def test_the_fit():
    pixels = [256, 1024, 4096, 16384]
    a, b = _fit(pixels, [3e-6 * p + 5e-9 * p**2 for p in pixels])
    assert (a, b) == (pytest.approx(3e-6), pytest.approx(5e-9))
    assert _fit(pixels, [100, 1020, 4100, 16384]) == (pytest.approx(4100 / 4096), 0)


def test_peak_memory():
    with PeakMemory() as peak:
        a = torch.ones(1000)
        b = a + 1
        del a
        c = b * 2
        c.view(10, 100)
    assert 8000 <= peak.most <= 8100


def test_the_memory_of_a_network_is_linear():
    made = Restorer(PANet(1, 4, 1, attention={"levels": 2}))
    per_pixel = made.cost.memory(64**2) / 64**2
    assert 4 * 4 * 4 < per_pixel < 4 * 4 * 100
    assert made.cost.memory(256**2) < 1.2 * per_pixel * 256**2
    assert made.cost.seconds(4096) > 2 * made.cost.seconds(1024) > 0


def test_traits():
    assert probe(lambda images: images, 5) == Traits(1, 1, 1)
    assert probe(nn.Upsample(scale_factor=3), 1) == Traits(3, 1, 1)
    assert probe(nn.Conv2d(3, 3, 3), 3) is None
    assert probe(nn.Conv2d(3, 4, 1), 3) is None
    assert probe(nn.Conv2d(3, 3, 1), 1) is None
    halves = nn.Sequential(nn.PixelUnshuffle(2), nn.PixelShuffle(2))
    assert probe(halves, 3) == Traits(1, 2, 2)
    assert [Traits(1, 8, 16).padded(side) for side in (1, 16, 17)] == [16, 16, 24]


def test_there_is_memory():
    assert free_memory(torch.device("cpu")) > 1e6


def test_words():
    assert [duration(seconds) for seconds in (0.123, 1.5, 45, 130, 1300, 9000)] == [
        *("0.12 s", "1.5 s", "45 s", "2.2 min", "22 min", "2.5 h")
    ]
    assert [size(count) for count in (1, 2.5e8, 1.26e9)] == ["1 MB", "250 MB", "1.3 GB"]
