import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import LogNorm, to_rgba
from matplotlib.image import AxesImage

from panet_plugin.archs import PANet
from panet_plugin.data import read_image
from panet_plugin.visualization import AttentionProbe, attention_figure, save_figure


@pytest.fixture(scope="module")
def probe():
    torch.manual_seed(0)
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return AttentionProbe(PANet(3, 8, 2, attention={"levels": 3, "softmax_scale": 30.0, "window": 9}), picture)


def shown(axis):
    return [artist.get_array() for artist in axis.get_children() if isinstance(artist, AxesImage)]


def test_what_the_figure_shows(probe, tmp_path):
    (view,) = probe.views([(5, 7)], matches=8)
    figure = attention_figure(probe, view)
    assert f"among {view.seen:,} patches" in figure.get_suptitle()
    panels = [axis for axis in figure.axes if axis.get_visible() and axis.get_title()]
    maps, patches = panels[1:4], panels[4:]
    np.testing.assert_array_equal(shown(panels[0])[0], probe.image)
    largest = max(level.max() for level in view.weights)
    (bar,) = (axis for axis in figure.axes if axis.get_label() == "<colorbar>")
    smallest = min(w[w > 0].min() for w in view.weights)
    assert bar.get_ylim() == pytest.approx((max(smallest, largest * 1e-4), largest), rel=1e-3)
    assert "logarithmic" in bar.get_ylabel()
    scale = LogNorm(*bar.get_ylim())
    for number, (axis, weights) in enumerate(zip(maps, view.weights, strict=True), 1):
        share = f"{100 * weights.sum():.3g} %"
        assert axis.get_title() == f"level {number}, scale {probe.scales[number - 1]:g}: {share} of the weight"
        colors = shown(axis)[1]
        assert colors.shape == (*weights.shape, 4)
        # One scale for all levels: a patch has the color that the bar has at its weight.
        row, column = np.unravel_index(weights.argmax(), weights.shape)
        # What the pixel does not see is left as it is in the image.
        assert (axis.images[1].get_alpha()[weights == 0] == 0).all() and (weights == 0).any()
        np.testing.assert_allclose(colors[row, column], colormaps["inferno"](scale(weights.max())), atol=0.02)
        # The map lies over the whole image, whatever its own size.
        assert axis.get_xlim() == (-0.5, 15.5)
        assert [tuple(image.get_extent()) for image in axis.images] == [(-0.5, 15.5, 11.5, -0.5)] * 2
        numbers = [text.get_text() for text in axis.texts]
        assert numbers == [str(n) for n, match in enumerate(view.matches, 1) if match.level == number - 1]
    assert [axis.get_title() for axis in patches] == [
        "the pixel's own patch\nat (5, 7)",
        *(
            f"{n}: weight {100 * m.weight:.3g} %\nscale {m.scale:g} at ({m.x:.1f}, {m.y:.1f})"
            for n, m in enumerate(view.matches, 1)
        ),
    ]
    for axis, match in zip(patches[1:], view.matches, strict=True):
        (box,) = axis.patches
        assert (box.get_width(), box.get_height()) == (match.width, match.height)
        assert sum(axis.get_xlim()) / 2 == pytest.approx(match.x)
        assert sum(axis.get_ylim()) / 2 == pytest.approx(match.y)
        assert box.get_edgecolor() == to_rgba("#ff3b30")
    save_figure(tmp_path / "new/figure.png", figure, dpi=40)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figure.png"]
    height, width = read_image(tmp_path / "new/figure.png").shape[:2]
    assert width == 13 * 40
    assert height > 150


@pytest.mark.parametrize("attention", [{"levels": 1, "softmax_scale": 0.0}, {"levels": 2, "hard": True}])
def test_weights_without_a_range(attention, tmp_path):
    picture = np.full((6, 40, 1), 80, np.uint8)
    probe = AttentionProbe(PANet(1, 8, 2, attention=attention), picture)
    figure = attention_figure(probe, probe.views([(0, 0)], 3)[0])
    save_figure(tmp_path / "figure.png", figure, dpi=30)
    titles = [axis.get_title() for axis in figure.axes]
    assert ("level 1, scale 1: 100 % of the weight" in titles) != attention.get("hard", False)
    assert read_image(tmp_path / "figure.png").std() > 10
