import numpy as np
import pytest

from panet_plugin.degradations import imresize, mosaic_bayer
from panet_plugin.inference.color import BT601, adapt
from panet_plugin.tasks import make_task

DENOISING, DEMOSAICING = make_task("denoising"), make_task("demosaicing")
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
GRAY = RGB[..., 0]


def whole(pixels, *arguments, **options):
    """Return all of an image as the network takes it, what turns all of a result back, and the note."""
    adapted = adapt(pixels, *arguments, **options)
    everything = [slice(0, side) for side in pixels.shape[:2]]

    def back(restored):
        found = adapted.back(restored, *everything)
        assert adapted.gray == (found.ndim == 2)
        return found

    return adapted.read(*everything), back, adapted.note


@pytest.mark.parametrize(("pixels", "channels"), [(RGB, 3), (RGB.astype(np.uint16) * 257, 3), (GRAY, 1)])
def test_what_fits_stays(pixels, channels):
    image, back, note = whole(pixels, channels)
    assert image.dtype == np.float32
    assert image.shape == (channels, 6, 8)
    np.testing.assert_allclose(back(image) * np.iinfo(pixels.dtype).max, pixels, atol=0.01)
    assert back(image).shape == pixels.shape
    assert note == ""


def test_a_gray_network_restores_the_luma_and_keeps_the_chroma():
    image, back, note = whole(RGB, 1)
    np.testing.assert_allclose(image[0], RGB @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-6)
    np.testing.assert_allclose(back(image) * 255, RGB, atol=1e-3)
    brighter = back(image + 0.1)
    np.testing.assert_allclose(brighter @ BT601, image[0] + 0.1, atol=1e-5)
    np.testing.assert_allclose(np.diff(brighter, axis=2), np.diff(RGB / 255, axis=2), atol=1e-5)
    assert "luma" in note


def test_its_chroma_is_enlarged_along():
    image, back, _ = whole(RGB, 1, scale=2)
    restored = back(imresize(image[0], 2)[None])
    np.testing.assert_allclose(restored, imresize(RGB / np.float32(255), 2), atol=1e-5)


def test_an_rgb_network_is_given_gray_three_times():
    image, back, _ = whole(GRAY, 3, task=DENOISING)
    np.testing.assert_array_equal(image, np.stack([GRAY / np.float32(255)] * 3))
    np.testing.assert_allclose(back(image), GRAY / 255, atol=1e-6)
    assert whole(GRAY, 3, scale=2)[0].shape == (3, 6, 8)
    with pytest.raises(ValueError, match="set --task demosaicing if it is a mosaic"):
        adapt(GRAY, 3)


@pytest.mark.parametrize("pattern", ["GRBG", "RGGB"])
def test_mosaics_of_one_channel_and_sparse_ones(pattern):
    task, sparse = make_task("demosaicing", pattern=pattern), mosaic_bayer(RGB, pattern)
    raw = sparse.sum(axis=2, dtype=np.uint8)
    for mosaic in (sparse, raw, np.stack([raw] * 3, axis=2)):
        image, back, _ = whole(mosaic, 3, task=task)
        np.testing.assert_array_equal(image, np.moveaxis(sparse, -1, 0) / np.float32(255))
        assert back(image).shape == (6, 8, 3)


def test_what_is_no_mosaic():
    with pytest.raises(ValueError, match="not a GRBG mosaic: expected one channel, or RGB with zeros"):
        adapt(RGB, 3, task=DEMOSAICING)
    with pytest.raises(ValueError, match=r"it fits BGGR \(--pattern BGGR\)"):
        adapt(mosaic_bayer(RGB, "BGGR"), 3, task=DEMOSAICING)
    with pytest.raises(ValueError, match="got one with 4 channels"):
        adapt(RGB, 4)
