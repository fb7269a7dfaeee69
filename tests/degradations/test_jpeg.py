from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from panet_plugin.degradations import closest_quality, compress_jpeg
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


def test_color_is_coded_as_by_pillow():
    ours = compress_jpeg(PICTURE, 40, luma_only=False)
    # Both use libjpeg-turbo; their versions may round colors differently by one.
    assert np.abs(ours.astype(int) - by_pillow(PICTURE, 40)).max() <= 2
    # A gray image has no color to code.
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
    with pytest.raises(TypeError, match="expected an 8-bit image"):
        compress_jpeg(image, 10)


@pytest.mark.parametrize("shape", [(0, 3), (2, 2, 4), (2,)])
def test_other_shapes(shape):
    with pytest.raises(ValueError, match="expected"):
        compress_jpeg(np.zeros(shape, np.uint8), 10)


def tables_of(quality):
    file = BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG", quality=quality)
    return Image.open(file).quantization


def test_the_quality_is_that_which_a_file_was_written_with():
    for quality in range(1, 101):
        luma, chroma = tables_of(quality).values()
        assert closest_quality(luma) == (quality, True)
        # Of the lowest qualities all values are 255, of the highest 1.
        assert closest_quality(chroma)[1] == (len(set(chroma)) == 1)


def test_the_closest_quality_to_other_tables():
    # As libjpeg writes it without its option for baseline files: half of a value above 50 times the scale.
    luma = np.array(tables_of(50)[0])
    assert closest_quality(luma * 5) == (10, True)
    assert (luma * 5).max() > 255
    for quality in (30, 75):
        other = np.array(tables_of(quality)[0])
        other[-1] += 1
        assert closest_quality(other) == (quality, False)
        assert closest_quality([0, *other[1:]]) == (quality, False)
