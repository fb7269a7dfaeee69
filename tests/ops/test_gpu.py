"""Every implementation on a GPU, where there is one."""

import pytest
import torch
from attention_cases import gradients, leaves, make_inputs

from panet_plugin.archs import PANet
from panet_plugin.ops import pyramid_attention

pytestmark = pytest.mark.gpu
NAMES = ("dense", "sdpa", "stream", "triton")


def on_gpu(inputs):
    query, keys, values = inputs
    return [
        query.detach().cuda().requires_grad_(),
        *([level.detach().cuda().requires_grad_() for level in levels] for levels in (keys, values)),
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(("size", "channels", "depth"), [((21, 18), 8, 16), ((1, 9), 3, 5), ((30, 40), 32, 144)])
def test_it_agrees_with_dense_in_float64(name, window, size, channels, depth):
    shape = {"size": size, "scales": 1 if min(size) == 1 else 5, "batch": 2, "channels": channels, "depth": depth}
    options = {"softmax_scale": 3.0, "window": window}
    exact, inputs = make_inputs(**shape), on_gpu(make_inputs(**shape, dtype=torch.float32))
    expected = pyramid_attention(*exact, **options, implementation="dense")
    output = pyramid_attention(*inputs, **options, implementation=name)
    cotangent = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.autograd.grad(output, leaves(*inputs), cotangent.float().cuda())
    for mine, theirs in zip([output, *found], [expected, *gradients(expected, leaves(*exact))], strict=True):
        assert (mine.double().cpu() - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", ["stream", "triton"])
@pytest.mark.parametrize("window", [None, 5])
def test_a_graph_is_captured(name, window):
    inputs = on_gpu(make_inputs((20, 23), 3, batch=2, dtype=torch.float32))
    with torch.no_grad():
        for _ in range(2):
            expected = pyramid_attention(*inputs, implementation=name, window=window)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = pyramid_attention(*inputs, implementation=name, window=window)
        graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.parametrize("name", ["auto", *NAMES])
def test_training_is_deterministic_on_request(name):
    network = PANet(mid_channels=16, num_blocks=1, attention={"implementation": name}).cuda()
    images = torch.rand(2, 3, 24, 24, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (torch.autograd.grad(network(images).sum(), list(network.parameters())) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", NAMES)
def test_the_program_of_reduce_overhead(name):
    query, keys, values = on_gpu(make_inputs((12, 14), 2, dtype=torch.float32))

    def function(query, keys, values):
        return pyramid_attention(query * 2, keys, values, implementation=name) + 1

    compiled = torch.compile(function, fullgraph=True, mode="reduce-overhead")
    for _ in range(3):
        output = compiled(query, keys, values).clone()
        torch.autograd.grad(output.sum(), leaves(query, keys, values))
    torch.testing.assert_close(output, function(query, keys, values), rtol=1e-4, atol=1e-4)
