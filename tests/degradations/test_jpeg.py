from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from panet_plugin.degradations import compress_jpeg
from panet_plugin.pixels import luma

PICTURE = astronaut()[100:157, 200:243]


def by_pillow(image, quality):
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


@pytest.mark.parametrize("quality", [1, 10, 20, 30, 40, 95, 100])
def test_luma_is_coded_as_by_pillow(quality):
    gray = luma(PICTURE)[..., 0]
    expected = by_pillow(gray, quality)
    assert not np.array_equal(expected, gray)
    np.testing.assert_array_equal(compress_jpeg(gray, quality), expected)
    np.testing.assert_array_equal(compress_jpeg(gray[..., None], quality), expected[..., None])
    np.testing.assert_array_equal(compress_jpeg(PICTURE, quality), expected[..., None])


def test_colour_is_coded_as_by_pillow():
    ours = compress_jpeg(PICTURE, 40, luma_only=False)
    # Both use libjpeg-turbo; their versions may round colours differently by one.
    assert np.abs(ours.astype(int) - by_pillow(PICTURE, 40)).max() <= 2
    # A gray image has no colour to code.
    gray = luma(PICTURE)
    np.testing.assert_array_equal(compress_jpeg(gray, 40, luma_only=False), compress_jpeg(gray, 40))


def test_one_pixel():
    assert compress_jpeg(np.full((1, 1), 77, np.uint8), 100).tolist() == [[77]]


@pytest.mark.parametrize("quality", [0, 101, -5, 10.0, "10", True, None])
def test_quality_out_of_range(quality):
    with pytest.raises(ValueError, match="quality must be a whole number from 1 to 100"):
        compress_jpeg(PICTURE, quality)


@pytest.mark.parametrize("image", [PICTURE / 255, PICTURE.astype(np.uint16), [[0]]])
def test_only_8_bit(image):
    with pytest.raises(TypeError, match="JPEG codes 8-bit images"):
        compress_jpeg(image, 10)


@pytest.mark.parametrize("shape", [(0, 3), (2, 2, 4), (2,)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match="expected"):
        compress_jpeg(np.zeros(shape, np.uint8), 10)
