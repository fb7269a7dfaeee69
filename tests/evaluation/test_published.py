import pytest

from panet_plugin.evaluation import published_scores
from panet_plugin.tasks import make_task


@pytest.mark.parametrize(
    ("task", "dataset", "method", "score"),
    [
        (make_task("super_resolution", scale=4), "Urban100", "PA-EDSR", (27.01, 0.814)),
        (make_task("super_resolution", scale=3), "set5", "bicubic", (30.39, 0.8682)),
        (make_task("super_resolution", scale=2), "BSD100", "RCAN", (32.41, 0.9027)),
        (make_task("denoising", sigma=50.0), "CBSD68", "CBM3D", (27.38, None)),
        (make_task("denoising", sigma=10), "Kodak24", "PANet", (37.35, None)),
        (make_task("demosaicing"), "McM", "Mosaiced", (9.17, 0.1674)),
        (make_task("artifact_reduction", quality=40), "LIVE1", "PANet", (34.55, 0.9305)),
    ],
)
def test_rows_of_the_tables(task, dataset, method, score):
    assert published_scores(task, dataset)[method] == score


def test_the_order_is_that_of_the_table():
    methods = list(published_scores(make_task("artifact_reduction"), "classic5"))
    assert methods == ["JPEG", "SA-DCT", "DnCNN", "RNAN", "PANet"]


def test_what_was_not_published_is_left_out():
    assert "NLRN" in published_scores(make_task("super_resolution"), "Urban100")
    assert "NLRN" not in published_scores(make_task("super_resolution"), "Manga109")


@pytest.mark.parametrize(
    ("task", "dataset"),
    [
        (make_task("super_resolution"), "DIV2K"),
        (make_task("super_resolution", scale=8), "Set5"),
        (make_task("denoising", sigma=25), "BSD68"),
        (make_task("denoising", sigma=50, gray=True), "BSD68"),
        (make_task("demosaicing", pattern="RGGB"), "McMaster18"),
        (make_task("artifact_reduction", luma_only=False), "LIVE1"),
    ],
)
def test_only_published_settings_have_scores(task, dataset):
    assert published_scores(task, dataset) == {}
