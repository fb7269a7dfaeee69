"""The weights of single pixels, against the whole matrix of the dense implementation."""

import numpy as np
import pytest
import torch
from attention_cases import make_inputs
from live_memory import Memory
from torch import nn

from panet_plugin.archs import PAEDSR, PANet, PyramidAttention, insert_pyramid_attention, pyramid_attention
from panet_plugin.ops import build_pyramid, dense
from panet_plugin.ops import pyramid_attention as attend
from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import key_scale, overlap_divisor
from panet_plugin.visualization import AttentionProbe, VisualizationError, attention_weights, takes_gray

SETTINGS = [(levels, ksize, hard) for levels in (1, 2, 3, 4, 5) for ksize in (1, 3) for hard in (False, True)]


def dense_weights(query, keys, softmax_scale, ksize, hard, window=None):
    scales = [key_scale(key, softmax_scale, ksize) for key in keys]
    return dense.attention_weights(Problem(query, keys, scales, [], ksize, hard, window))


def all_pixels(image):
    return [(row, column) for row in range(image.shape[-2]) for column in range(image.shape[-1])]


@pytest.mark.parametrize(("levels", "ksize", "hard"), [*SETTINGS, (2, 5, False)])
def test_rows_are_those_of_the_whole_matrix(levels, ksize, hard):
    query, keys, _ = make_inputs((9, 7), levels)
    expected = dense_weights(query, keys, 2.0, ksize, hard)[0]
    # Every pixel: corners and borders too. Each alone gives what all give together.
    pixels = all_pixels(query)
    found = attention_weights(query, keys, pixels, softmax_scale=2.0, ksize=ksize, hard=hard)
    assert [level.shape for level in found] == [(63, *key.shape[2:]) for key in keys]
    rows = torch.cat([level.flatten(1) for level in found], 1)
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-12)
    alone = attention_weights(query, keys, pixels[-1:], softmax_scale=2.0, ksize=ksize, hard=hard)
    torch.testing.assert_close(torch.cat([level.flatten() for level in alone]), expected[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("levels", "ksize", "hard"), SETTINGS[-8:])
def test_rows_of_the_neighbors_add_up_to_the_output(levels, ksize, hard):
    query, keys, values = make_inputs((9, 7), levels)
    settings = {"softmax_scale": 2.0, "ksize": ksize, "hard": hard}
    expected = attend(query, keys, values, **settings)[0]
    radius, pixels = ksize // 2, all_pixels(query)
    rows = attention_weights(query, keys, pixels, **settings)
    for row, column in ((0, 0), (0, 6), (8, 0), (8, 6), (0, 3), (4, 6), (4, 3)):
        total = torch.zeros(values[0].shape[1], dtype=torch.float64)
        for down in range(-radius, radius + 1):
            for right in range(-radius, radius + 1):
                # The neighbor whose pasted patches have their pixel (down, right) here.
                neighbor = row - down, column - right
                if neighbor not in pixels:
                    continue
                for weights, value in zip(rows, values, strict=True):
                    height, width = value.shape[2:]
                    padded = nn.functional.pad(value[0], (radius,) * 4)
                    shifted = padded[:, radius + down :, radius + right :][:, :height, :width]
                    total += (weights[pixels.index(neighbor)] * shifted).sum((1, 2))
        torch.testing.assert_close(total / overlap_divisor(ksize), expected[:, row, column], rtol=0, atol=1e-10)


def peak_bytes(side):
    query, keys, _ = make_inputs((side, side), 5, channels=2, dtype=torch.float32)
    with torch.no_grad(), Memory() as memory:
        attention_weights(query, keys, [(side // 2, 3)])
    return memory.peak


def test_memory_is_linear_in_the_pixels():
    small, large = peak_bytes(48), peak_bytes(96)
    assert large < 4.2 * small
    # A pixel of the image has 3.3 keys; scores, their sum and weights are a few numbers of 4 bytes each.
    assert large < 96**2 * 3.3 * 4 * 8


def image(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (PANet(1, 8, 2, attention={"levels": 3}), 1),
        (PAEDSR(2, mid_channels=8, num_blocks=2, attention={"levels": 5, "reduction": 2}), 3),
        (PANet(3, 8, 2, attention={"scales": (1, 0.55), "ksize": 1, "softmax_scale": 30.0}), 3),
        (PANet(3, 8, 2, attention={"levels": 2, "hard": True}), 3),
        (PANet(3, 8, 2, attention={"levels": 2, "window": 2}), 3),
    ],
)
def test_views_of_a_network(network, channels, monkeypatch):
    network.double()
    (block,) = (module for module in network.modules() if isinstance(module, PyramidAttention))
    caught = []
    hook = block.register_forward_hook(lambda module, args, result: caught.append(args[0]))
    picture = image(11, 14, channels)
    with torch.no_grad():
        network(torch.from_numpy(picture).permute(2, 0, 1)[None].double() / 255)
        keys = [block.key(level) for level in build_pyramid(caught[0], block.scales)]
        query = block.query(caught[0])
        matrix = dense_weights(query, keys, block.softmax_scale, block.ksize, block.hard, block.window)[0]
    hook.remove()

    # The attention of the whole image is not computed.
    monkeypatch.setattr(pyramid_attention, "pyramid_attention", None)
    probe = AttentionProbe(network, picture)
    assert probe.positions == [key[0, 0].numel() for key in keys]
    for view, (x, y) in zip(
        probe.views([(0, 0), (13, 10), (5, 2)], matches=9), [(0, 0), (13, 10), (5, 2)], strict=True
    ):
        row = np.concatenate([level.ravel() for level in view.weights])
        np.testing.assert_allclose(row, matrix[y * 14 + x], rtol=0, atol=1e-10)
        assert (view.x, view.y, view.width, view.height) == (x, y, block.ksize, block.ksize)
        if block.hard:
            assert [match.weight for match in view.matches] == [1.0]
        else:
            assert row.sum() == pytest.approx(1)
            # No patch that it does not see.
            assert [match.weight for match in view.matches] == sorted(row[row > 0].tolist(), reverse=True)[:9]
            assert view.seen == np.count_nonzero(row)
            assert len(view.matches) == min(9, view.seen)
        for match in view.matches:
            assert match.weight == view.weights[match.level][match.row, match.column]
            assert match.scale == block.scales[match.level]


def test_places_of_matches_are_where_the_pyramid_was_sampled():
    probe = AttentionProbe(PANet(3, 8, 2, attention={"levels": 5}), image(20, 30))
    # Away from the border, bicubic sampling of a=-0.75 nearly keeps a ramp, whose values are the places sampled.
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    for level, ramp in enumerate(build_pyramid(torch.stack([columns, rows])[None].double(), probe.scales)):
        height, width = ramp.shape[2:]
        for row, column in ((height // 2, width // 3), (3, width - 4)):
            match = probe.match(level, row, column, 0.0)
            assert [match.x, match.y] == pytest.approx(ramp[0, :, row, column].tolist(), abs=0.06)
            assert [match.width, match.height] == pytest.approx([3 * 30 / width, 3 * 20 / height])


class Padded(nn.Module):
    """Halves the sides, after padding them to multiples of 8 at the right and at the bottom, as networks of windows."""

    def __init__(self, stride=2):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, stride, 1) if stride >= 1 else nn.ConvTranspose2d(3, 4, 2, 2)
        self.attention = PyramidAttention(4, levels=2)

    def forward(self, x):
        height, width = x.shape[2:]
        x = nn.functional.pad(x, (0, -width % 8, 0, -height % 8))
        return self.attention(self.head(x))


@pytest.mark.parametrize(
    ("stride", "features", "pixel", "size"),
    [(2, (12, 16), (14, 10), 6), (1, (24, 32), (29, 21), 3), (0.5, (48, 64), (59, 43), 1.5)],
)
def test_features_of_another_size_than_the_image(stride, features, pixel, size):
    network = Padded(stride)
    probe = AttentionProbe(network, image(22, 30))
    assert probe.extent == (32, 24)
    assert probe.positions[0] == features[0] * features[1]
    (view,) = probe.views([(29, 21)])
    with torch.no_grad():
        x = nn.functional.pad(torch.from_numpy(image(22, 30)).permute(2, 0, 1)[None] / 255, (0, 2, 0, 2))
        head = network.head(x)
        block = network.attention
        keys = [block.key(level) for level in build_pyramid(head, block.scales)]
        matrix = dense_weights(block.query(head), keys, 10.0, 3, False)[0].view(*features, -1)
    row = np.concatenate([level.ravel() for level in view.weights])
    np.testing.assert_allclose(row, matrix[pixel[1], pixel[0]], rtol=1e-4, atol=1e-7)
    assert (view.width, view.height) == (size, size)
    # The first position of the finest level covers the first pixels.
    match = probe.match(0, 0, 0, 0.0)
    assert match.x == match.y == pytest.approx(size / 6 - 0.5)


def test_the_last_pixels_of_an_image_that_is_no_multiple():
    network = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 4, 1), PyramidAttention(4, levels=1))
    last, before = AttentionProbe(network, image(9, 11)).views([(10, 8), (9, 7)])
    np.testing.assert_array_equal(last.weights[0], before.weights[0])


@pytest.fixture
def two_blocks():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1))
    return insert_pyramid_attention(network, ["0", "1"], levels=2)


def test_a_block_is_chosen(two_blocks):
    probes = [AttentionProbe(two_blocks, image(8, 9), f"{path}.pyramid_attention") for path in "01"]
    assert [probe.block for probe in probes] == ["0.pyramid_attention", "1.pyramid_attention"]
    first, second = (probe.views([(4, 4)])[0].weights[0] for probe in probes)
    assert np.abs(first - second).max() > 1e-3 * first.max()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (None, "Sequential has several pyramid attention blocks: choose one of 0.py.*, 1.pyramid_attention"),
        ("2", "Sequential has no pyramid attention '2': choose one of 0.pyramid_attention, 1.pyramid_attention"),
    ],
)
def test_blocks_are_listed(two_blocks, block, message):
    with pytest.raises(VisualizationError, match=message):
        AttentionProbe(two_blocks, image(8, 9), block)


def test_networks_that_cannot_be_shown():
    with pytest.raises(VisualizationError, match="Conv2d has no pyramid attention"):
        AttentionProbe(nn.Conv2d(3, 3, 1), image(8, 8))
    with pytest.raises(VisualizationError, match=r"PANet does not accept this image \(8x8x3\): .*channels"):
        AttentionProbe(PANet(1, 8, 2), image(8, 8))
    with pytest.raises(VisualizationError, match=r"body.blocks.1: the pyramid level .* has no pixel"):
        AttentionProbe(PANet(3, 8, 2, attention={"levels": 9}), image(3, 8))

    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = PyramidAttention(4)

        def forward(self, x):
            return x

    with pytest.raises(VisualizationError, match="Unused does not call its block attention"):
        AttentionProbe(Unused(), image(8, 8))
    assert not Unused().attention._forward_pre_hooks


def test_no_hook_is_left_behind():
    network = PANet(3, 8, 2, attention={"levels": 1})
    AttentionProbe(network, image(6, 6))
    assert network(torch.rand(1, 3, 6, 6)).shape == (1, 3, 6, 6)


@pytest.mark.parametrize("pixel", [(-1, 0), (0, -1), (9, 0), (0, 8)])
def test_pixels_outside(pixel):
    probe = AttentionProbe(PANet(3, 8, 2, attention={"levels": 1}), image(8, 9))
    with pytest.raises(VisualizationError, match=r"outside the image: expected x from 0 to 8 and y from 0 to 7"):
        probe.views([(0, 0), pixel])


def test_gray_networks_are_known():
    assert takes_gray(PANet(1, 8, 2))
    assert not takes_gray(PANet(3, 8, 2))
    assert not takes_gray(nn.Identity())
