"""What the goldens do not show of the networks."""

import pytest
import torch
from torch import nn

from panet_plugin.archs import PAEDSR, RNAN, PANet, PyramidAttention, attention_window


def test_initialization_is_that_of_pytorch():
    torch.manual_seed(0)
    block = PyramidAttention()
    torch.manual_seed(0)
    expected = nn.Conv2d(64, 32, 1)
    torch.testing.assert_close(block.query[0].weight, expected.weight, rtol=0, atol=0)
    slopes = [module.weight.item() for module in PANet(num_blocks=2).modules() if isinstance(module, nn.PReLU)]
    assert slopes == [0.25] * 4  # three embeddings, and one slope that the residual blocks share


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PyramidAttention(levels=0), "levels"),
        (lambda: PyramidAttention(levels=11), "levels"),
        (lambda: PyramidAttention(ksize=2), "ksize"),
        (lambda: PyramidAttention(reduction=65), "reduction"),
        (lambda: PyramidAttention(implementation="fast"), "'fast'"),
        (lambda: PyramidAttention(scales=()), "scales"),
        (lambda: PyramidAttention(scales=(1.0, 1.5)), "scales"),
        (lambda: PyramidAttention(residual_init="one"), "residual_init must be 'zero' or None, got 'one'"),
        (lambda: PyramidAttention(residual_init="zero", res_scale=0.1), "requires res_scale=1, got 0.1"),
        (lambda: PANet(num_blocks=-1), "num_blocks"),
        (lambda: PAEDSR(scale=5), "scale"),
        (lambda: PAEDSR(in_channels=1, mean=(0.1, 0.2)), "mean"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("network", [PANet, PAEDSR, RNAN, PyramidAttention])
def test_unknown_arguments_are_errors(network):
    with pytest.raises(TypeError, match="num_block"):
        network(num_block=3)


def test_scales_of_the_pyramid():
    torch.manual_seed(0)
    block = PyramidAttention(8, levels=3)
    features = torch.rand(1, 8, 10, 11)
    same = PyramidAttention(8, scales=[1.0, 0.9, 0.8])
    other = PyramidAttention(8, scales=(1.0, 0.5))
    for each in (same, other):
        each.load_state_dict(block.state_dict())
    torch.testing.assert_close(same(features), block(features))
    assert (other(features) - block(features)).abs().max() > 1e-4


def test_a_window_is_no_other_word():
    block = PyramidAttention(4, window=3)
    message = "window must be 'trained', None or at least 1 pixel, got 'none'"
    with pytest.raises(ValueError, match=message), attention_window(block, "none"):
        pass
    assert block.window == 3


def test_a_block_that_starts_as_the_identity():
    torch.manual_seed(0)
    block = PyramidAttention(8, levels=2, residual_init="zero")
    plain = PyramidAttention(8, levels=2)
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if name != "gain"})
    features = torch.randn(1, 8, 9, 7)
    output = block(features)
    assert torch.equal(output, features)
    output.sum().backward()
    assert block.gain.grad.abs().min() > 0
    assert not block.value[0].weight.grad.any()  # not before the gain has moved, but no missing gradient either
    block.gain.data.copy_(torch.arange(8.0).view(8, 1, 1))
    torch.testing.assert_close(
        block(features), features + torch.arange(8.0).view(8, 1, 1) * (plain(features) - features)
    )


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_scales(scale):
    network = PAEDSR(scale=scale, mid_channels=4, num_blocks=1, attention={"reduction": 1, "levels": 2})
    assert network(torch.rand(1, 3, 6, 5)).shape == (1, 3, 6 * scale, 5 * scale)


def test_the_mean_is_neither_trained_nor_lost():
    network = PAEDSR(mid_channels=8, num_blocks=0)
    network(torch.rand(1, 3, 12, 12)).sum().backward()
    assert network.mean.grad is None
    assert "mean" in network.state_dict()
    assert dict(network.named_buffers()) == {}
