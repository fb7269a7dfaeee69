"""Batches of tensors have the scores of their images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from panet_plugin.metrics import (
    PROTOCOLS,
    batched_psnr,
    batched_rgb_to_y,
    batched_ssim,
    psnr,
    rgb_to_y,
    ssim,
)


def batch(channels, height, width, seed):
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 256, (3, height, width, channels), dtype=np.uint8)
    noise = rng.normal(0, rng.uniform(0.1, 60), reference.shape)
    return np.clip(np.rint(reference + noise), 0, 255).astype(np.uint8), reference


def tensors(*batches):
    return [torch.from_numpy(images).permute(0, 3, 1, 2) for images in batches]


@given(
    st.sampled_from([1, 3]),
    st.integers(17, 30),
    st.integers(17, 30),
    st.integers(0, 3),
    st.integers(0, 2**32),
    st.sampled_from(["gaussian", "uniform8"]),
)
def test_batches_score_as_their_images(channels, height, width, border, seed, window):
    restored, reference = batch(channels, height, width, seed)
    pairs = list(zip(restored, reference, strict=True))
    assert batched_psnr(*tensors(restored, reference), border).tolist() == pytest.approx(
        [psnr(a, b, border) for a, b in pairs], abs=1e-9
    )
    assert batched_ssim(*tensors(restored, reference), border, window).tolist() == pytest.approx(
        [ssim(a, b, border, window) for a, b in pairs], abs=1e-9
    )
    if channels == 3:
        y = batched_rgb_to_y(*tensors(reference))
        np.testing.assert_allclose(y[:, 0].numpy(), [rgb_to_y(image) for image in reference], atol=1e-9)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_every_protocol_has_both_forms(protocol, channels, scale):
    restored, reference = batch(channels, 33, 31, 0)
    for ours, batched in ((protocol.psnr, protocol.batched_psnr), (protocol.ssim, protocol.batched_ssim)):
        scores = batched(*tensors(restored, reference), scale)
        expected = [ours(a, b, scale) for a, b in zip(restored, reference, strict=True)]
        assert scores.tolist() == pytest.approx(expected, abs=1e-9)
    assert protocol.source in protocol.__doc__
    with pytest.raises(ValueError, match="rounded to 8 bit"):
        protocol.batched_psnr(torch.rand(1, 3, 33, 31), torch.rand(1, 3, 33, 31))


def test_equal_images():
    images = torch.full((2, 3, 12, 12), 7, dtype=torch.uint8)
    assert batched_psnr(images, images).tolist() == [float("inf")] * 2
    assert batched_ssim(images, images).tolist() == [1, 1]


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected two batches \(N, C, H, W\) with the same shape"):
        batched_psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5))
    with pytest.raises(ValueError, match="leaves nothing of a 4x4 image"):
        batched_psnr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), 2)
    with pytest.raises(ValueError, match="SSIM requires at least 11 pixels per side"):
        batched_ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))
    with pytest.raises(ValueError, match="expected RGB images"):
        batched_rgb_to_y(torch.zeros(1, 1, 4, 4))
