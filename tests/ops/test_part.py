"""A part of an image has the pyramid, and the attention, that it has in the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panet_plugin.archs import PyramidAttention
from panet_plugin.ops import build_pyramid
from panet_plugin.ops.part import Part, build_part_pyramid, part_of_whole

SCALES = (1, 0.9, 0.6, 0.35)


@given(data=st.data(), height=st.integers(12, 60), width=st.integers(12, 60))
def test_the_levels_of_a_part_are_those_of_the_whole(data, height, width):
    features = torch.rand(1, 2, height, width, dtype=torch.float64)
    top, left = data.draw(st.integers(0, height - 12)), data.draw(st.integers(0, width - 12))
    part_height, part_width = data.draw(st.integers(12, height - top)), data.draw(st.integers(12, width - left))
    part = Part(top, left, part_height, part_width, (height, width))
    there = features[..., top : top + part_height, left : left + part_width]
    levels, frame = build_part_pyramid(there, SCALES, part)
    assert frame[:4] == [top, left, height, width]
    for index, (level, whole) in enumerate(zip(levels, build_pyramid(features, SCALES), strict=True), start=1):
        first, second, *size = frame[4 * index : 4 * index + 4]
        assert tuple(size) == tuple(whole.shape[-2:])
        expected = whole[..., first : first + level.shape[-2], second : second + level.shape[-1]]
        torch.testing.assert_close(level, expected)
        # Nothing is left out that the part determines: at two borders, the kernel needs 4 pixels.
        for count, old, new, all_old in zip(level.shape[-2:], there.shape[-2:], size, (height, width), strict=True):
            assert count >= (old - 5) * new / all_old - 1


@pytest.mark.parametrize("implementation", ["dense", "stream", "fused"])
@pytest.mark.parametrize("window", [5, 8])
def test_the_attention_of_a_part_is_that_of_the_whole_away_from_its_borders(implementation, window):
    torch.manual_seed(0)
    block = PyramidAttention(8, levels=3, implementation=implementation, window=window).eval()
    features = torch.rand(2, 8, 40, 48)
    reach = window + 6
    with torch.no_grad():
        whole = block(features)
        for top, bottom in ((0, 20), (20, 40)):
            for left, right in ((0, 17), (17, 33), (33, 48)):
                first, last = max(top - reach, 0), min(bottom + reach, 40)
                begin, end = max(left - reach, 0), min(right + reach, 48)
                with part_of_whole(Part(first, begin, last - first, end - begin, (40, 48))):
                    part = block(features[..., first:last, begin:end])
                part = part[..., top - first : bottom - first, left - begin : right - begin]
                torch.testing.assert_close(part, whole[..., top:bottom, left:right], rtol=1e-4, atol=1e-5)


def test_what_a_part_cannot_be():
    block, features = PyramidAttention(8, window=4), torch.rand(1, 8, 16, 16)
    with part_of_whole(Part(0, 0, 16, 16, (32, 32))):
        with pytest.raises(ValueError, match="expected features of the part's 16x16"):
            block(features[..., :15])
        with pytest.raises(ValueError, match="without a window"):
            PyramidAttention(8)(features)
    assert block(features).shape == features.shape
    with pytest.raises(ValueError, match=r"a part of 2x2 has no pixel of the level with scale 0\.5"):
        build_part_pyramid(features[..., :2, :2], [0.5], Part(1, 1, 2, 2, (16, 16)))
