import numpy as np
import pytest
import torch
from torch import nn

from panet_plugin.archs import PANet
from panet_plugin.inference import Restorer


class Brighten(nn.Module):
    def forward(self, x):
        assert not self.training
        assert not torch.is_grad_enabled()
        return (x * 2).repeat_interleave(2, -1)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_network_sees_0_to_1_and_the_result_is_clipped_and_rounded(shape, dtype):
    most = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, most, shape, dtype=dtype, endpoint=True)
    restored = Restorer(Brighten()).restore(image)
    expected = np.minimum(image.astype(int) * 2, most).repeat(2, axis=1)
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, expected)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((0, 4), np.uint8), np.zeros(4, np.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match="expected 8- or 16-bit"):
        Restorer(Brighten()).restore(image)


def test_a_network_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="returns 3 channels for an image of 1"):
        Restorer(nn.Conv2d(1, 3, 1)).restore(np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "half"}, "mode must be one of auto, whole, tiles, chop, got 'half'"),
        ({"batch": 0}, "batch 1"),
        ({"limit": 1000}, "limit must be at least 1024"),
        ({"max_memory": 0}, "max_memory positive"),
        ({"max_seconds": -1}, "max_seconds not negative"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Restorer(Brighten(), **options)


def test_images_of_one_size_are_batches():
    sizes = []

    class Count(nn.Module):
        def forward(self, x):
            sizes.append(tuple(x.shape))
            return x / 2

    images = torch.rand(5, 3, 30, 31)
    seen = []
    restorer = Restorer(Count(), batch=2)
    torch.testing.assert_close(restorer.restore_batch(images, progress=seen.append), images / 2)
    assert sizes[-3:] == [(2, 3, 30, 31), (2, 3, 30, 31), (1, 3, 30, 31)]
    assert seen == [2 * 30 * 31, 2 * 30 * 31, 30 * 31]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.005)])
def test_half_precision(dtype, tolerance):
    torch.manual_seed(0)
    network = PANet(1, 8, 2, attention={"levels": 2}).eval()
    image = torch.rand(1, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
    restored = Restorer(network, dtype=dtype).restore_batch(image)
    assert restored.dtype == torch.float32
    difference = (restored - expected).abs().max()
    assert 0 < difference < tolerance * expected.abs().max()


def test_what_is_not_finite_is_no_image():
    class Overflow(nn.Module):
        def forward(self, x):
            return x * 1e6

    image = np.full((4, 4), 255, np.uint8)
    assert Restorer(Overflow()).restore(image).max() == 255
    with pytest.raises(ValueError, match=r"not finite: .*float16"):
        Restorer(Overflow(), dtype=torch.float16).restore(image)


class Windows(nn.Module):
    """Needs sides that are multiples of 8, and 16 pixels at least; enlarges."""

    def forward(self, x):
        if x.shape[1] != 1 or any(side % 8 or side < 16 for side in x.shape[-2:]):
            raise RuntimeError("no such windows")
        return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize("mode", ["whole", "tiles", "chop"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (17, 40), (33, 70)])
def test_sizes_that_a_network_does_not_take_are_mirrored(mode, size):
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    restorer = Restorer(Windows(), mode=mode, tile=24, overlap=4)
    np.testing.assert_array_equal(restorer.restore(image), image.repeat(2, axis=0).repeat(2, axis=1))
    assert restorer.traits(1) == (2, 8, 16)
    assert (restorer.channels, restorer.scale, restorer.traits(3)) == (1, 2, None)


def test_the_mirror():
    class Sum(nn.Module):
        def forward(self, x):
            if x.shape[-1] % 4 or x.shape[-2] % 4:
                raise RuntimeError
            return x + x.mean(-1, keepdim=True)

    image = torch.tensor([[1.0, 2.0, 4.0]]).view(1, 1, 1, 3)
    expected = image + torch.tensor([1.0, 2.0, 4.0, 2.0]).mean()
    torch.testing.assert_close(Restorer(Sum()).restore_batch(image), expected)


def test_our_networks_take_any_image():
    restorer = Restorer(PANet(1, 4, 1))
    for size in ((1, 1), (1, 9), (7, 2)):
        assert restorer.restore(np.zeros(size, np.uint8)).shape == size
    assert restorer.traits(1) == (1, 1, 2)


def test_a_network_that_takes_no_image():
    restorer = Restorer(nn.Conv2d(2, 2, 1), mode="tiles")
    with pytest.raises(ValueError, match="does not accept images with 3, 1 or 4 channels"):
        _ = restorer.channels
    with pytest.raises(ValueError, match="does not restore images of 3 channels"):
        restorer.restore(np.zeros((4, 4, 3), np.uint8))
