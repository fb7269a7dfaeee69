import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from panet_plugin.metrics import PROTOCOLS, psnr, quantize, rgb_to_y, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 256, (40, 31, 3), dtype=np.uint8)
    return np.clip(reference + rng.normal(0, 9, reference.shape), 0, 255).astype(np.uint8), reference


def test_psnr_of_a_known_error():
    black, gray = np.zeros((8, 9)), np.full((8, 9), 2.55)
    assert psnr(gray, black) == pytest.approx(40)
    assert psnr(black, black) == math.inf


def test_psnr_pools_the_error_of_all_channels():
    black, red = np.zeros((4, 4, 3)), np.zeros((4, 4, 3))
    red[..., 0] = 51
    assert psnr(red, black) == pytest.approx(10 * math.log10(255**2 / (51**2 / 3)))


def test_the_border_is_left_out(pair):
    restored, reference = pair
    damaged = restored.copy()
    damaged[:3], damaged[-3:], damaged[:, :3], damaged[:, -3:] = 0, 0, 0, 0
    assert (
        psnr(damaged, reference, 3) == psnr(restored, reference, 3) == psnr(restored[3:-3, 3:-3], reference[3:-3, 3:-3])
    )
    assert ssim(damaged, reference, 3) == ssim(restored, reference, 3)
    assert psnr(damaged, reference, 2) < psnr(restored, reference, 2)


def test_luma_is_matlabs():
    corners = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], dtype=np.uint8)
    assert rgb_to_y(corners) == pytest.approx(np.array([[16, 235, 81.481]]))


def test_ssim_gaussian_agrees_with_scikit_image(pair):
    expected = structural_similarity(
        *pair, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(*pair) == pytest.approx(expected, abs=1e-9)


def test_ssim_uniform8_from_its_definition(pair):
    x, y = (image[..., 0].astype(float) for image in pair)
    windows = [np.lib.stride_tricks.sliding_window_view(image, (8, 8)) for image in (x, y)]
    (mx, my), (vx, vy) = ([w.mean((2, 3)) for w in windows], [w.var((2, 3)) for w in windows])
    covariance = (windows[0] * windows[1]).mean((2, 3)) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(x, y, window="uniform8") == pytest.approx(expected.mean(), abs=1e-12)


def test_quantize_clips_and_rounds():
    assert quantize(np.array([-1, 0.49 / 255, 0.51 / 255, 2])).tolist() == [0, 0, 1, 255]


def test_protocols(pair):
    restored, reference = pair
    sr = PROTOCOLS["sr_y"]
    assert sr.psnr(restored, reference, 2) == psnr(rgb_to_y(restored), rgb_to_y(reference), 2)
    assert sr.ssim(restored, reference, 2) == ssim(rgb_to_y(restored), rgb_to_y(reference), 2)
    assert PROTOCOLS["div2k_rgb"].psnr(restored, reference, 2) == psnr(restored, reference, 8)
    assert PROTOCOLS["dn_rgb"].psnr(restored, reference) == psnr(restored, reference)
    gray = restored[..., :1], reference[..., :1]
    assert PROTOCOLS["car_y"].ssim(*gray) == ssim(gray[0][..., 0], gray[1][..., 0], window="uniform8")


def test_unrounded_predictions_are_refused(pair):
    with pytest.raises(ValueError, match="8 bit"):
        PROTOCOLS["sr_y"].psnr(pair[0] / 255, pair[1] / 255, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: psnr(a, a[1:]), "the same shape"),
        (lambda a: psnr(a, a, 20), "leaves nothing"),
        (lambda a: ssim(a[:9], a[:9]), "11 pixels"),
        (lambda a: ssim(a, a, window="box"), "'box'"),
        (lambda a: rgb_to_y(a[..., 0]), "RGB"),
    ],
)
def test_bad_input_is_named(pair, call, message):
    with pytest.raises(ValueError, match=message):
        call(pair[0])
