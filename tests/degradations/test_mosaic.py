import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from panet_plugin.degradations import mosaic_bayer

PATTERNS = ["GRBG", "RGGB", "BGGR", "GBRG"]
IMAGES = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.float64]),
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)),
    elements={"allow_nan": False},
)


@given(IMAGES, st.sampled_from(PATTERNS))
def test_each_pixel_keeps_the_channel_of_its_site(image, pattern):
    mosaic = mosaic_bayer(image, pattern)
    assert mosaic.dtype == image.dtype
    for y, x in np.ndindex(image.shape[:2]):
        kept = "RGB".index(pattern[y % 2 * 2 + x % 2])
        for channel in range(3):
            assert mosaic[y, x, channel] == (image[y, x, channel] if channel == kept else 0)


def test_the_published_pattern():
    cell = np.arange(1, 13, dtype=np.uint8).reshape(2, 2, 3)
    assert mosaic_bayer(cell).tolist() == [[[0, 2, 0], [4, 0, 0]], [[0, 0, 9], [0, 11, 0]]]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 4)])
def test_only_rgb(shape):
    with pytest.raises(ValueError, match="expected an RGB image"):
        mosaic_bayer(np.zeros(shape, np.uint8))


def test_unknown_pattern():
    with pytest.raises(ValueError, match="pattern must be one of GRBG, RGGB, BGGR, GBRG, got 'XTRANS'"):
        mosaic_bayer(np.zeros((2, 2, 3)), "XTRANS")
