"""What the goldens do not show of RNAN."""

import pytest
import torch

from panet_plugin.archs import RNAN
from panet_plugin.ops import non_local


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 5), (8, 6)])
@pytest.mark.parametrize(("scale", "channels"), [(1, 1), (1, 3), (2, 3), (3, 1), (4, 3)])
def test_any_size_and_scale(size, scale, channels):
    network = RNAN(scale, channels, mid_channels=4, num_groups=2)
    output = network(torch.rand(2, channels, *size))
    assert output.shape == (2, channels, size[0] * scale, size[1] * scale)


def test_every_weight_is_trained_and_the_mean_is_not():
    torch.manual_seed(0)
    network = RNAN(scale=2, mid_channels=8, num_groups=3)
    for block in (network.low.mask.non_local, network.high.mask.non_local):
        torch.nn.init.normal_(block.output.weight)  # zero at first: then nothing reaches the rest of the block
    network(torch.rand(1, 3, 6, 6)).square().sum().backward()
    idle = {name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()}
    # A number added to all queries' scores of a key changes none of its weights: rounding alone moves those biases.
    assert idle - {f"{part}.mask.non_local.query.bias" for part in ("low", "high")} == {"mean"}
    assert dict(network.named_buffers()) == {}


def test_without_a_tail_it_is_the_identity():
    network = RNAN(mid_channels=4, num_groups=2)
    torch.nn.init.zeros_(network.tail.weight)
    torch.nn.init.zeros_(network.tail.bias)
    image = torch.rand(1, 3, 5, 6)
    assert torch.equal(network(image), image)


def test_training_in_blocks_is_training_at_once(monkeypatch):
    torch.manual_seed(0)
    network, image = RNAN(mid_channels=4, num_groups=2).double(), torch.rand(2, 3, 8, 7, dtype=torch.float64)
    torch.nn.init.normal_(network.low.mask.non_local.output.weight)

    def gradients():
        network.zero_grad()
        network(image).square().sum().backward()
        return [weight.grad.clone() for weight in network.parameters()]

    expected = gradients()
    monkeypatch.setattr(non_local, "MAX_SCORES", 500)
    torch.testing.assert_close(gradients(), expected)


def test_the_published_size():
    with torch.device("meta"):
        count = sum(weight.numel() for weight in RNAN().parameters())
    assert round(count / 1e6, 2) == 8.96


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, "scale"),
        ({"num_groups": 1}, "num_groups must be at least 2, got 1"),
        ({"mid_channels": 1}, "mid_channels must be at least 2, got 1"),
        ({"mean": (0.1, 0.2, 0.3)}, "mean requires a scale above 1"),
        ({"scale": 2, "mean": (0.1,)}, "mean must have one value per channel"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RNAN(**arguments)
