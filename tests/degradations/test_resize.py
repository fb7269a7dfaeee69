"""MATLAB's own results, an exact oracle in fractions, and Pillow."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from panet_plugin.degradations import imresize


def random_image(shape, dtype=np.uint8, seed=0):
    high = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 255
    return np.random.default_rng(seed).integers(0, high + 1, shape).astype(dtype)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("corner", ["top_left", "bottom_right"])
def test_reproduces_matlabs_low_resolution_images(corner, scale):
    """Corners of Set5's bird and of its published LR images: true borders on two sides, cuts on the others."""
    with np.load(Path(__file__).parent / "matlab_bicubic.npz") as golden:
        ours = imresize(golden[f"{corner}_hr"], 1 / scale)
        matlab = golden[f"{corner}_x{scale}"]
    # An LR pixel sees two more on either side: three are cut off, where the crop ends and the image does not.
    keep = (slice(None, -3),) * 2 if corner == "top_left" else (slice(3, None),) * 2
    assert ours.shape == matlab.shape
    np.testing.assert_array_equal(ours[keep], matlab[keep])


def exact_cubic(x):
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)


def exact_triangle(x):
    return max(1 - abs(x), Fraction(0))


def exact_line(line, length, scale, kernel, width, antialias):
    """One line of pixels, resized by the definition with no rounding error at all."""
    stretch = min(scale, Fraction(1)) if antialias else Fraction(1)
    resized = []
    for out in range(length):
        center = (out + Fraction(1, 2)) / scale - Fraction(1, 2)
        reach = math.ceil(width / stretch)
        taps = range(math.floor(center) - reach, math.floor(center) + reach + 2)
        weights = [kernel(stretch * (center - tap)) for tap in taps]
        total = Fraction(0)
        for tap, weight in zip(taps, weights, strict=True):
            mirrored = tap % (2 * len(line))
            total += weight * line[mirrored if mirrored < len(line) else 2 * len(line) - 1 - mirrored]
        resized.append(total / sum(weights))
    return resized


def exact_resize(image, shape, scales, kernel=exact_cubic, width=2, antialias=True):
    """Both passes on a single-channel image; integers are rounded between them, halves upward.

    A value that is exactly between two integers becomes NaN, and so does all that depends on it: floating-point
    weights such as 1/3 decide for themselves what becomes of it.
    """
    limit = np.iinfo(image.dtype).max if image.dtype.kind == "u" else None
    lines = [[Fraction(float(value)) for value in row] for row in image]

    def resized(line, axis):
        if any(value is None for value in line):
            return [None] * shape[axis]
        values = exact_line(line, shape[axis], scales[axis], kernel, width, antialias)
        if limit is None:
            return values
        return [None if value % 1 == HALF else Fraction(min(max(round(value), 0), limit)) for value in values]

    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        if axis == 0:
            lines = [list(column) for column in zip(*lines, strict=True)]
        lines = [resized(line, axis) for line in lines]
        if axis == 0:
            lines = [list(column) for column in zip(*lines, strict=True)]
    return np.array([[math.nan if value is None else float(value) for value in row] for row in lines])


def assert_equals_exact(ours, exact):
    """Integers are bit-exact but for the ties; 1e-12 is relative to the range of 255."""
    known = ~np.isnan(exact)
    assert known.mean() > 0.5
    np.testing.assert_allclose(ours[known], exact[known], rtol=0, atol=255e-12 if ours.dtype.kind == "f" else 0)


HALF = Fraction(1, 2)
FACTORS = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(3, 4), Fraction(2, 7), Fraction(2), Fraction(5, 2)]


@pytest.mark.parametrize("factor", FACTORS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_equals_the_definition(factor, dtype):
    image = random_image((9, 14), dtype)
    ours = imresize(image, float(factor))
    assert ours.dtype == dtype
    exact = exact_resize(image, tuple(math.ceil(side * factor) for side in image.shape), (factor, factor))
    assert_equals_exact(ours, exact)


@pytest.mark.parametrize("shape", [(4, 5), (5, 30), (30, 7), (1, 1), (13, 8)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
@pytest.mark.parametrize("antialias", [True, False])
def test_output_shape_equals_the_definition(shape, dtype, antialias):
    """Each side has a factor of its own; for integers, the order of the passes shows."""
    image = random_image((13, 8), dtype, seed=1)
    scales = tuple(Fraction(new, old) for new, old in zip(shape, image.shape, strict=True))
    exact = exact_resize(image, shape, scales, antialias=antialias)
    assert_equals_exact(imresize(image, output_shape=shape, antialias=antialias), exact)


@pytest.mark.parametrize("factor", FACTORS, ids=str)
def test_bilinear_equals_the_definition(factor):
    image = random_image((9, 14), np.float64)
    shape = tuple(math.ceil(side * factor) for side in image.shape)
    exact = exact_resize(image, shape, (factor, factor), exact_triangle, 1)
    assert_equals_exact(imresize(image, float(factor), method="bilinear"), exact)


def test_the_passes_are_rounded_rows_first():
    """The other order, or no rounding between the passes, gives another image: the definition above is not vacuous."""
    image = random_image((40, 40))
    ours = imresize(image, 0.5)
    assert (ours != imresize(image.T.copy(), 0.5).T).any()
    assert (np.floor(np.clip(imresize(image.astype(float), 0.5), 0, 255) + 0.5) != ours).any()
    # Factors of 1/2 and 1/4 have binary weights: here halves are exact, and go upward.
    np.testing.assert_array_equal(imresize(np.array([[0, 1]], np.uint8), output_shape=(1, 1)), [[1]])


def test_agrees_with_pillow_away_from_the_border():
    image = random_image((96, 120), np.float64)
    ours = imresize(image, 1 / 3)
    pillow = np.asarray(Image.fromarray(image.astype(np.float32)).resize((40, 32), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours[3:-3, 3:-3], pillow[3:-3, 3:-3], atol=1e-3)


@settings(max_examples=50)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32, np.float64]),
    scale=st.floats(0.05, 4),
)
def test_any_size_scale_and_type(height, width, channels, dtype, scale):
    image = random_image((height, width) + ((channels,) if channels else ()), dtype)
    resized = imresize(image, scale)
    assert resized.shape == (math.ceil(height * scale), math.ceil(width * scale), *image.shape[2:])
    assert resized.dtype == dtype
    assert resized.flags.c_contiguous
    if channels:
        for channel in range(channels):
            np.testing.assert_array_equal(resized[..., channel], imresize(image[..., channel].copy(), scale))
    flat = imresize(np.full_like(image, 200), scale)
    np.testing.assert_allclose(flat, 200, rtol=1e-6)


def test_float32_is_the_rounded_float64_result():
    image = random_image((20, 17, 3), np.float32) / np.float32(255)
    np.testing.assert_array_equal(imresize(image, 0.5), imresize(image.astype(np.float64), 0.5).astype(np.float32))


def test_input_is_untouched_and_may_be_a_view():
    image = random_image((24, 36, 3))
    copy = image.copy()
    view = image[::-1, 2:-2, ::-1]
    np.testing.assert_array_equal(imresize(view, 0.5), imresize(np.ascontiguousarray(view), 0.5))
    np.testing.assert_array_equal(image, copy)
    np.testing.assert_array_equal(imresize(image, 1), image)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scale": 0}, ValueError, "scale above 0, got 0"),
        ({"scale": -2}, ValueError, "scale above 0, got -2"),
        ({"scale": float("nan")}, ValueError, "got nan"),
        ({"scale": float("inf")}, ValueError, "got inf"),
        ({}, ValueError, "either scale or output_shape"),
        ({"scale": 2, "output_shape": (4, 4)}, ValueError, "either scale or output_shape"),
        ({"output_shape": (0, 4)}, ValueError, r"got \(0, 4\)"),
        ({"output_shape": (4, 4, 3)}, ValueError, r"got \(4, 4, 3\)"),
        ({"output_shape": (4.5, 4)}, ValueError, r"got \(4.5, 4\)"),
        ({"scale": 2, "method": "cubic"}, ValueError, "'cubic'"),
        ({"image": np.zeros((0, 4), np.uint8), "scale": 2}, ValueError, r"shape \(0, 4\)"),
        ({"image": np.zeros(4, np.uint8), "scale": 2}, ValueError, r"shape \(4,\)"),
        ({"image": np.zeros((4, 4), np.int32), "scale": 2}, TypeError, "int32"),
        ({"image": np.zeros((4, 4), bool), "scale": 2}, TypeError, "bool"),
        ({"image": [[1, 2]], "scale": 2}, TypeError, "list"),
        ({"image": np.full((4, 4), np.nan), "scale": 2}, ValueError, "NaN"),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        imresize(**{"image": random_image((8, 8)), **arguments})
