import numpy as np
import pytest
import torch
from torch import nn

from panet_plugin.inference import Restorer, chop, self_ensemble


class Skew(nn.Module):
    """Enlarges by 2 and treats every direction differently."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        torch.manual_seed(0)
        nn.init.normal_(self.conv.weight, std=0.2)

    def forward(self, x):
        return nn.functional.pixel_shuffle(self.conv(x), 2)


def naive(run, image):
    """Turn a NumPy image in all eight ways, one after the other."""
    results = []
    for turns in range(4):
        for mirrored in (False, True):
            seen = np.rot90(image, turns, (1, 2))
            seen = seen[:, :, ::-1] if mirrored else seen
            result = run(torch.from_numpy(seen.copy())[None])[0].numpy()
            result = result[:, :, ::-1] if mirrored else result
            results.append(np.rot90(result, -turns, (1, 2)))
    return np.mean(results, axis=0)


@pytest.mark.parametrize("cut", [False, True])
def test_the_mean_of_all_eight(cut):
    network = Skew().eval()

    def run(images):
        return chop(network, images, scale=2, limit=1100) if cut else network(images)

    image = np.random.default_rng(0).random((3, 70, 41), dtype=np.float32)
    with torch.inference_mode():
        expected = naive(run, image)
        output = self_ensemble(run, torch.from_numpy(image)[None])[0].numpy()
        np.testing.assert_allclose(output, expected, atol=1e-6)
        assert np.abs(output - run(torch.from_numpy(image)[None])[0].numpy()).max() > 0.01
    restorer = Restorer(network, mode="chop" if cut else "whole", limit=1100, ensemble=True)
    np.testing.assert_allclose(restorer.restore_batch(torch.from_numpy(image)[None])[0], expected, atol=1e-6)
