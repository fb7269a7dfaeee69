"""The oracle itself, against the definition written out as loops."""

import math

import onnxruntime
import pytest
import torch
from attention_cases import leaves, make_inputs

from panet_plugin.ops import pyramid_attention


def pixel(image: torch.Tensor, y: int, x: int) -> torch.Tensor:
    if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
        return image[:, y, x]
    return torch.zeros_like(image[:, 0, 0])


def patch(image: torch.Tensor, y: int, x: int, ksize: int) -> torch.Tensor:
    r = ksize // 2
    return torch.stack([pixel(image, y + dy, x + dx) for dy in range(-r, r + 1) for dx in range(-r, r + 1)])


def by_definition(query, keys, values, softmax_scale, ksize, hard):
    height, width = query.shape[1:]
    r = ksize // 2
    output = torch.zeros(values[0].shape[0], height, width, dtype=query.dtype)
    positions = [(i, y, x) for i, k in enumerate(keys) for y in range(k.shape[1]) for x in range(k.shape[2])]
    for y in range(height):
        for x in range(width):
            q = patch(query, y, x, ksize)
            scores = []
            for i, ky, kx in positions:
                k = patch(keys[i], ky, kx, ksize)
                scores.append(softmax_scale * (q * k).sum() / max(k.norm().item(), 1e-4))
            scores = torch.stack(scores)
            weights = (scores == scores.max()).to(scores) if hard else scores.softmax(0)
            pasted = sum(w * patch(values[i], *at, ksize) for w, (i, *at) in zip(weights, positions, strict=True))
            for n, (dy, dx) in enumerate((dy, dx) for dy in range(-r, r + 1) for dx in range(-r, r + 1)):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    output[:, y + dy, x + dx] += pasted[n]
    return output / ((ksize + 1) / 2) ** 2


@pytest.mark.parametrize(("ksize", "hard"), [(1, False), (3, False), (3, True), (5, False)])
def test_dense_is_the_definition(ksize, hard):
    query, keys, values = make_inputs((4, 5), (1.0, 0.5))
    with torch.no_grad():
        expected = by_definition(query[0], [k[0] for k in keys], [v[0] for v in values], 2.0, ksize, hard)
        actual = pyramid_attention(
            query, keys, values, softmax_scale=2.0, ksize=ksize, hard=hard, implementation="dense"
        )
    torch.testing.assert_close(actual[0], expected, rtol=1e-12, atol=1e-12)


def test_dense_has_second_derivatives():
    inputs = leaves(*make_inputs((3, 3), 1, channels=2, depth=1))

    def function(query, key, value):
        return pyramid_attention(query, [key], [value], softmax_scale=1.0, implementation="dense")

    assert torch.autograd.gradgradcheck(function, inputs)


def test_hard_matching_pastes_every_maximum():
    """On a constant image with one-pixel patches every key ties; the original adds all of them up."""
    image = torch.ones(1, 2, 3, 4, dtype=torch.float64)
    output = pyramid_attention(image, [image], [image], ksize=1, hard=True, implementation="dense")
    assert torch.equal(output, torch.full_like(output, math.prod(image.shape[2:])))


@pytest.mark.filterwarnings("ignore")
def test_exports_to_onnx(tmp_path):
    class Module(torch.nn.Module):
        def forward(self, x):
            return pyramid_attention(x, [x, x[..., 1:, 1:]], [x * 2, x[..., 1:, 1:]])

    x = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "attention.onnx"
    torch.onnx.export(Module(), (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), Module()(x), rtol=1e-4, atol=1e-5)
