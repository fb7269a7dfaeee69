import numpy as np
import pytest
from evaluation_sets import PICTURES, make_set

from panet_plugin.data import write_image
from panet_plugin.evaluation import (
    EvaluationError,
    FigureChoice,
    FolderMethod,
    FunctionMethod,
    ImageSet,
    bicubic,
    choose_figures,
    compare,
    degraded,
    figures,
    write_figures,
)
from panet_plugin.tasks import make_task
from panet_plugin.visualization import Box

SR, DN = make_task("super_resolution", scale=2), make_task("denoising", sigma=30)


@pytest.fixture
def images(tmp_path):
    return ImageSet.open(make_set(tmp_path / "Tiny"))


@pytest.fixture
def drawn(monkeypatch):
    """Return the list of what is drawn instead of drawing it."""
    found = []
    monkeypatch.setattr(figures, "comparison_figure", lambda comparisons, note: found.append((*comparisons, note)))
    monkeypatch.setattr(figures, "save_figure", lambda path, figure: None)
    return found


def test_choices(images):
    texts = ["auto", "coffee", "Tiny/coffee", "coffee:2,4,10,26"]
    assert choose_figures(texts, [images], SR) == [
        FigureChoice(),
        FigureChoice("Tiny", "coffee"),
        FigureChoice("Tiny", "coffee"),
        FigureChoice("Tiny", "coffee", Box(2, 4, 10, 26)),
    ]
    other = ImageSet("Other", {"a:1,2": images.files["coffee"], **images.files})
    assert choose_figures(["a:1,2", "a:1,2:0,0,3,3"], [images, other], SR)[1].box == Box(0, 0, 3, 3)
    with pytest.raises(EvaluationError, match=r"'coffee': expected .*\n  Tiny/coffee\n  Other/coffee$"):
        choose_figures(["coffee"], [images, other], SR)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("none", r"expected auto, NAME or NAME:X,Y,WIDTH,HEIGHT with .*\n  Tiny/chelsea\n  Tiny/coffee$"),
        ("coffee:1,2,3", "expected auto, NAME or"),
        ("coffee:-1,2,3,3", "expected auto, NAME or"),
        # 31x33 pixels are cut to 30x32.
        ("coffee:0,0,33,30", "not within the image, which has 32x30"),
        ("coffee:0,1,32,30", "not within the image"),
        ("coffee:0,1,0,3", "the box is empty or"),
    ],
)
def test_choices_that_are_none(images, text, message):
    with pytest.raises(EvaluationError, match=message):
        choose_figures([text], [images], SR)


def blur(name, rows):
    """Return a method that is wrong in some rows of coffee."""

    def function(image):
        image = image.copy()
        if image.shape[1] == 33:
            image[rows] = 255 - image[rows]
        return image

    return FunctionMethod(name, function, name)


def test_the_image_and_the_part_are_where_methods_differ_most(images, drawn, tmp_path):
    task = make_task("denoising", sigma=0)
    methods = [degraded(task), blur("first", slice(0, 0)), blur("second", slice(0, 3))]
    scores = compare(task, [images], methods)
    (path,) = write_figures(tmp_path, [FigureChoice()], task, [images], methods, scores)
    assert path == tmp_path / "Tiny_coffee.png"
    ((shown, note),) = drawn
    assert shown.name == "Tiny: coffee"
    assert shown.box.y == 0
    np.testing.assert_array_equal(shown.reference, PICTURES["coffee"])
    assert [panel.name for panel in shown.panels] == ["degraded", "first", "second"]
    by_method = {score.method: score for score in scores if score.image == "coffee"}
    for panel in shown.panels:
        assert (panel.psnr, panel.ssim) == (by_method[panel.name].psnr, by_method[panel.name].ssim)
    assert note.startswith("Denoising s0. PSNR / SSIM are of the whole image, by the protocol dn_rgb. Enlarged: 24x24")
    assert note.endswith("where first and second differ most.")


def test_the_input_is_shown(images, drawn, tmp_path):
    for task, method in ((SR, bicubic(SR)), (DN, blur("net", slice(0, 5)))):
        scores = compare(task, [images], [method], seed=3)
        write_figures(tmp_path, [FigureChoice("Tiny", "coffee", Box(2, 4, 6, 8))], task, [images], [method], scores, 3)
    (sr, note), (dn, _) = drawn
    assert sr.box == Box(2, 4, 6, 8)
    assert note.endswith("Enlarged: 6x8 pixels at (2, 4), selected manually.")
    assert [panel.name for panel in sr.panels] == ["input", "bicubic"]
    assert sr.panels[0].image.shape == (15, 16, 3)
    assert sr.panels[0].psnr is None
    noisy = DN.degrade_image(PICTURES["coffee"], "coffee", 3)
    np.testing.assert_array_equal(dn.panels[0].image, noisy)
    assert dn.panels[0].psnr == DN.protocol.psnr(noisy, PICTURES["coffee"])
    assert dn.panels[0].ssim == DN.protocol.ssim(noisy, PICTURES["coffee"])


def test_one_method_alone_is_shown_where_it_is_worst(images, drawn, tmp_path):
    task = make_task("denoising", sigma=0)
    method = blur("net", slice(28, 31))
    scores = compare(task, [images], [method])
    assert [path.name for path in write_figures(tmp_path, [FigureChoice()], task, [images], [method], scores)] == [
        "Tiny_coffee.png"
    ]
    ((shown, note),) = drawn
    assert shown.box.y + shown.box.height >= 29
    assert note.endswith("where the error of net is largest.")


def test_folders_of_results_in_a_file(images, tmp_path):
    for name, picture in PICTURES.items():
        write_image(tmp_path / f"theirs/{name}.png", SR.reference(picture) // 2)
    methods = [bicubic(SR), FolderMethod("theirs", tmp_path / "theirs")]
    scores = compare(SR, [images], methods)
    choices = [FigureChoice(), FigureChoice("Tiny", "coffee", Box(2, 4, 6, 8))]
    fresh = [bicubic(SR), FolderMethod("theirs", tmp_path / "theirs")]
    paths = write_figures(tmp_path / "out", choices, SR, [images], fresh, scores)
    assert [path.name for path in paths][1] == "Tiny_coffee_2_4_6_8.png"
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
