import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from panet_plugin.degradations import add_gaussian_noise

IMAGES = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7)
)


@given(IMAGES, st.integers(0, 2**32), st.floats(0, 100))
def test_equal_seeds_give_equal_noise(image, seed, sigma):
    first = add_gaussian_noise(image, sigma, seed)
    assert first.dtype == np.uint8 and first.shape == image.shape
    np.testing.assert_array_equal(add_gaussian_noise(image, sigma, seed), first)
    as_float = add_gaussian_noise(image, sigma, seed, mode="float")
    assert as_float.dtype == np.float64
    np.testing.assert_array_equal(np.rint(np.clip(as_float, 0, 1) * 255).astype(np.uint8), first)


@given(hnp.arrays(np.uint8, (5, 4, 3)))
def test_types_agree(image):
    noisy = add_gaussian_noise(image, 30, 1)
    np.testing.assert_array_equal(add_gaussian_noise(image.astype(np.uint16) * 257, 30, 1), noisy)
    np.testing.assert_array_equal(add_gaussian_noise(image / 255, 30, 1), noisy)
    np.testing.assert_array_equal(add_gaussian_noise(image, 0, 1), image)


def test_float32_stays_float32():
    assert add_gaussian_noise(np.zeros((2, 2), np.float32), 1, 0, mode="float").dtype == np.float32


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_sigma_is_on_the_scale_of_8_bit(dtype):
    middle = np.full((200, 200, 3), 0.5 if dtype == np.float32 else np.iinfo(dtype).max // 2, dtype)
    noise = add_gaussian_noise(middle, 30, 0, mode="float")
    assert noise.std() * 255 == pytest.approx(30, rel=0.01)
    assert abs(noise.mean() - middle.mean() / (1 if dtype == np.float32 else np.iinfo(dtype).max)) < 0.002
    # White: pixels and channels are independent of each other.
    noise = noise - noise.mean()
    for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])):
        assert abs((a * b).mean() / noise.var()) < 0.02


def test_a_range_is_drawn_from_uniformly():
    flat = np.full((50, 50), 0.5)
    levels = [add_gaussian_noise(flat, (10, 50), seed, mode="float").std() * 255 for seed in range(100)]
    assert 9 < min(levels) < 14 and 46 < max(levels) < 53 and np.mean(levels) == pytest.approx(30, abs=4)


def test_fresh_noise_differs():
    image = np.full((8, 8), 128, np.uint8)
    assert not np.array_equal(add_gaussian_noise(image, 30), add_gaussian_noise(image, 30))


@pytest.mark.parametrize("sigma", [-1, float("nan"), float("inf"), (5, 1), (1,), (1, 2, 3), "30", None, (-1, 3)])
def test_sigma_out_of_range(sigma):
    with pytest.raises(ValueError, match="sigma must be a finite number of at least 0"):
        add_gaussian_noise(np.zeros((2, 2), np.uint8), sigma)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_that_are_not_finite(value):
    with pytest.raises(ValueError, match="NaN or infinite"):
        add_gaussian_noise(np.full((2, 2), value), 1)


@pytest.mark.parametrize("image", [np.zeros((2, 2), bool), np.zeros((2, 2), np.int32), [[0, 1]]])
def test_other_types_are_refused(image):
    with pytest.raises(TypeError, match="expected a NumPy image"):
        add_gaussian_noise(image, 1)


def test_unknown_mode():
    with pytest.raises(ValueError, match="mode must be 'quantized' or 'float', got '8bit'"):
        add_gaussian_noise(np.zeros((2, 2)), 1, mode="8bit")
