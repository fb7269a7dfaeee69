import numpy as np
import pytest
import torch
from torch import nn

from panet_plugin.inference import Restorer


class Brighten(nn.Module):
    def forward(self, x):
        assert not self.training
        assert not torch.is_grad_enabled()
        return (x * 2).repeat_interleave(2, -1)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3)])
def test_the_network_sees_0_to_1_and_the_result_is_clipped_and_rounded(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    restored = Restorer(Brighten()).restore(image)
    expected = np.minimum(image.astype(int) * 2, 255).repeat(2, axis=1)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, expected)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_other_images_are_refused(image):
    with pytest.raises(ValueError, match="expected 8-bit"):
        Restorer(Brighten()).restore(image)


def test_a_network_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="returns 3 channels for an image of 1"):
        Restorer(nn.Conv2d(1, 3, 1)).restore(np.zeros((4, 4), np.uint8))
