import numpy as np
import pytest
from matplotlib.colors import to_rgba

from panet_plugin.data import read_image
from panet_plugin.visualization import (
    Box,
    Comparison,
    Panel,
    VisualizationError,
    choose_box,
    comparison_figure,
    save_figure,
)

TRUTH = np.random.default_rng(0).integers(0, 256, (36, 48, 3), np.uint8)


def test_the_box_is_where_errors_differ_most():
    truth = np.full((80, 200, 3), 100, np.uint8)
    alike, first, second = truth.copy(), truth.copy(), truth.copy()
    # Both are wrong here, by the same amount; at the right only one is.
    first[10:20, 10:20], second[10:20, 10:20] = 200, 0
    first[50:60, 150:160] += 20
    box = choose_box(truth, [alike, first])
    assert (box.width, box.height) == (24, 24)
    assert box.x <= 10 and box.x + 24 >= 20 and box.y <= 10 and box.y + 24 >= 20
    box = choose_box(truth, [first, second])
    assert box.x <= 150 and box.x + 24 >= 160 and box.y <= 50 and box.y + 24 >= 60
    # One alone: where it is wrong.
    assert choose_box(truth, [second]).x <= 10
    # Gray, with and without channels.
    assert choose_box(truth[..., 0], [first[..., 0], second[..., 0]]) == box
    assert choose_box(truth[..., :1], [first[..., :1], second[..., :1]]) == box


@pytest.mark.parametrize(
    ("shape", "multiple", "side"), [((36, 48), 1, 24), ((300, 240), 3, 39), ((8, 90), 2, 8), ((4, 4), 4, 4)]
)
def test_the_box_fits(shape, multiple, side):
    truth = np.zeros(shape, np.uint8)
    worse = truth.copy()
    worse[-1, -1] = 255
    box = choose_box(truth, [truth, worse], multiple)
    assert (box.width, box.height) == (side, side)
    assert all(number % multiple == 0 for number in box)
    assert box.x + side <= shape[1] and box.y + side <= shape[0]
    assert box.x + side > shape[1] - multiple and box.y + side > shape[0] - multiple


BOX = Box(8, 4, 12, 20)


def comparison(box=BOX, **changes):
    panels = [
        Panel("input", TRUTH[::2, ::2]),
        Panel("plain", TRUTH // 2, 20.126, 0.5),
        Panel("ours", TRUTH, 20.134, 0.4),
        Panel("same", TRUTH // 3, 20.13, 0.45),
    ]
    return Comparison(**{"name": "noise", "reference": TRUTH, "box": box, "panels": panels, **changes})


def test_names_are_no_formulas(tmp_path):
    named = comparison(name=r"$\x$", panels=[Panel(r"$\frac$", TRUTH)])
    save_figure(tmp_path / "figure.png", comparison_figure([named]), 30)
    assert (tmp_path / "figure.png").exists()


def test_what_the_figure_shows(tmp_path):
    figure = comparison_figure([comparison(), comparison(name="again")], "scores of " + "all the images " * 30)
    whole, truth, *panels = figure.axes[:6]
    assert whole.get_xlabel() == "noise"
    assert figure.axes[6].get_xlabel() == "again"
    # The frame is around the 12x20 pixels at (8, 4), whose edges are half a pixel from their centers.
    (frame,) = whole.patches
    assert frame.get_bbox().extents.tolist() == [7, 3, 20, 24]
    titles = [axis.get_title() for axis in (truth, *panels)]
    assert titles == ["ground truth", "input", "plain", "ours", "same"]
    captions = [axis.get_xlabel() for axis in (truth, *panels)]
    assert captions == ["PSNR / SSIM", "1/2 of the size", "20.13 dB / 0.5000", "20.13 dB / 0.4000", "20.13 dB / 0.4500"]
    # Those are best that are printed as best.
    assert [axis.xaxis.label.get_fontweight() for axis in panels] == ["normal", "bold", "bold", "bold"]
    for axis, image in zip((truth, *panels), (TRUTH, *(panel.image for panel in comparison().panels)), strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
        assert tuple(axis.images[0].get_extent()) == (-0.5, 47.5, 35.5, -0.5)
        assert (axis.get_xlim(), axis.get_ylim()) == ((7.5, 19.5), (23.5, 3.5))
        assert axis.spines["left"].get_edgecolor() == to_rgba("#ff3b30")
    assert figure.get_supxlabel().count("\n") >= 3
    save_figure(tmp_path / "figure.png", figure, dpi=40)
    assert read_image(tmp_path / "figure.png").std() > 10


def test_pixels_of_crops_in_the_file(tmp_path):
    """The crop of an image with one color in the box has that color, and none of what is around it."""
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[..., 2] = 255
    picture[10:20, 20:30] = [0, 255, 0]
    shown = Comparison("square", picture, Box(20, 10, 10, 10), [Panel("method", picture, 30.0, 0.9)])
    save_figure(tmp_path / "figure.png", comparison_figure([shown]), dpi=50)
    pixels = read_image(tmp_path / "figure.png").astype(int)
    right = pixels[:, pixels.shape[1] // 2 :]
    assert (right == [0, 255, 0]).all(-1).sum() > 5000
    assert (right == [0, 0, 255]).all(-1).sum() == 0


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ([], "at least one"),
        ([comparison(Box(40, 4, 9, 5))], r"noise: the box of 9x5 pixels at \(40, 4\) is not inside .* 48x36"),
        ([comparison(Box(-1, 4, 9, 5))], "not inside"),
        ([comparison(Box(0, 0, 0, 5))], "not inside"),
        (
            [comparison(panels=[Panel("odd", TRUTH[:35])])],
            "noise: odd has 48x35 pixels, of which 48x36 is not a multiple",
        ),
        ([comparison(panels=[Panel("larger", np.zeros((72, 96)))])], "not a multiple"),
    ],
)
def test_what_cannot_be_shown(shown, message):
    with pytest.raises(VisualizationError, match=message):
        comparison_figure(shown)
