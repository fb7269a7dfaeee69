import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from panet_plugin.evaluation.published import published_scores
from panet_plugin.tasks import Deblurring, TaskError, image_rng, make_task

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def test_the_blur_is_gaussian_and_mirrors_the_edges():
    blurred = Deblurring(blur=1.6, noise=0).degrade(PICTURE, np.random.default_rng(0))
    expected = gaussian_filter(PICTURE.astype(float), (1.6, 1.6, 0), mode="reflect", truncate=4)
    assert blurred.dtype == np.uint8
    assert np.abs(blurred - expected).max() < 0.51
    gray = Deblurring(noise=0).degrade(PICTURE[..., :1], np.random.default_rng(0))
    assert gray.shape == (40, 30, 1)


def test_the_noise_comes_after_the_blur():
    flat = np.full((64, 64, 3), 128, np.uint8)
    assert Deblurring(noise=5).degrade(flat, np.random.default_rng(0)).std() == pytest.approx(5, rel=0.05)


def test_blind_levels():
    task = make_task("deblurring", blur=[0.5, 3])
    assert task == Deblurring((0.5, 3)) == make_task(**task.describe())
    assert (task.level, Deblurring().label) == ("b0.5-3", "Deblurring b1.6")
    found = [task.degrade(PICTURE, image_rng(str(i), 0)).astype(float).std() for i in range(20)]
    assert min(found) < 15 and max(found) > 25
    assert task.covers(Deblurring(1)) and not task.covers(Deblurring(1, noise=3))


@pytest.mark.parametrize("blur", [0, -1, float("nan"), float("inf"), (2, 1), (1,), (1, 2, 3), ()])
def test_a_blur_that_is_none(blur):
    with pytest.raises(TaskError, match="blur must be a number above 0 or a range"):
        make_task("deblurring", blur=blur)


def test_nothing_is_published():
    assert published_scores(Deblurring(), "Set5") == {}
