"""Networks that add to an image, and networks without their attention."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.archs.image_residual import interpolate_mosaic
from panet_plugin.degradations import mosaic_bayer
from panet_plugin.weights import load_official, write_checkpoint


def silent(network):
    """Return the network with a last layer that gives zero."""
    torch.nn.init.zeros_(network.tail.weight)
    torch.nn.init.zeros_(network.tail.bias)
    return network


@pytest.mark.parametrize("pattern", ["GRBG", "RGGB", "BGGR", "GBRG"])
def test_the_mosaic_of_a_ramp_is_interpolated_to_the_ramp(pattern):
    rows, columns = np.mgrid[:9, :8].astype(np.float32)
    ramp = np.stack([rows + 2 * columns, 3 * rows - columns, 5 - rows], axis=2) / 50
    mosaic = torch.from_numpy(mosaic_bayer(ramp, pattern)).permute(2, 0, 1)[None]
    inner = np.s_[1:-1, 1:-1]
    found = interpolate_mosaic(mosaic)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[inner], ramp[inner], atol=1e-6)
    sampled = mosaic_bayer(np.ones_like(ramp), pattern) == 1
    np.testing.assert_allclose(found[sampled], ramp[sampled], atol=1e-6)


@pytest.mark.parametrize("pattern", ["GRBG", "BGGR"])
def test_the_interpolation_is_right_at_the_borders_too(pattern):
    color = np.broadcast_to(np.float32([0.2, 0.5, 0.9]), (5, 6, 3))
    mosaic = torch.from_numpy(mosaic_bayer(color, pattern)).permute(2, 0, 1)[None]
    torch.testing.assert_close(interpolate_mosaic(mosaic)[0].permute(1, 2, 0), torch.from_numpy(color.copy()))


def test_what_is_added():
    torch.manual_seed(0)
    small = {"mid_channels": 4, "num_blocks": 2, "attention": {"levels": 1, "reduction": 2}}
    x = torch.rand(1, 3, 8, 7)
    assert not silent(PANet(**small))(x).any()
    assert torch.equal(silent(PANet(**small, image_residual=True))(x), x)
    assert torch.equal(silent(PANet(**small, image_residual="mosaic"))(x), interpolate_mosaic(x))
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1).expand(1, 3, 16, 14)
    torch.testing.assert_close(silent(PAEDSR(**small))(x), mean)
    bicubic = F.interpolate(x, scale_factor=2, mode="bicubic")
    torch.testing.assert_close(silent(PAEDSR(**small, image_residual=True))(x), bicubic)


@pytest.mark.parametrize(("channels", "kind"), [(3, "bayer"), (3, 2), (1, "mosaic")])
def test_other_values_are_refused(channels, kind):
    with pytest.raises(ValueError, match="image_residual"):
        PANet(channels, 4, 2, image_residual=kind)


@pytest.mark.parametrize(
    "network",
    [
        PANet(mid_channels=4, num_blocks=2, image_residual=True),
        PANet(mid_channels=4, num_blocks=2, image_residual="mosaic"),
        PAEDSR(mid_channels=8, num_blocks=2, image_residual=True),
    ],
    ids=["input", "mosaic", "upscaled"],
)
def test_files_say_it(network, tmp_path):
    write_checkpoint(network, tmp_path / "network.safetensors")
    loaded = load_official(tmp_path / "network.safetensors")
    x = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))
    assert loaded.arguments["image_residual"] == network.arguments["image_residual"]


@pytest.mark.parametrize("network", [PANet, PAEDSR])
@pytest.mark.parametrize("kind", [False, True, "mosaic"])
def test_tensors_alone_say_it(network, kind):
    """Programs such as spandrel pass nothing else on: a guess would make wrong images without a word."""
    if network is PAEDSR and kind == "mosaic":
        with pytest.raises(ValueError, match="'mosaic'"):
            network(image_residual=kind)
        return
    attention = {"reduction": 2, "residual_init": "zero", "res_scale": 1.0}
    trained = network(mid_channels=8, num_blocks=2, attention=attention, image_residual=kind).eval()
    for parameter in trained.parameters():
        torch.nn.init.uniform_(parameter, -0.1, 0.1)
    with pytest.warns(UserWarning, match="does not record"):
        loaded = load_official(trained.state_dict())
    x = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), trained(x))
    state = {name: value for name, value in trained.state_dict().items() if name != "image_residual.kind"}
    if kind:
        with pytest.raises(RuntimeError, match=r"image_residual\.kind"):
            trained.load_state_dict(state)


@pytest.mark.parametrize("network", [PANet, PAEDSR])
def test_a_backbone_goes_on_with_a_block_that_starts_as_the_identity(network):
    torch.manual_seed(0)
    small = {"mid_channels": 8, "num_blocks": 3, "res_scale": 1.0}
    backbone = network(**small, attention=False)
    whole = network(**small, attention={"residual_init": "zero", "reduction": 2})
    missing, unexpected = whole.load_state_dict(backbone.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all(name.startswith("body.blocks.1.") for name in missing)
    x = torch.rand(1, 3, 10, 9)
    torch.testing.assert_close(whole(x), backbone(x))
