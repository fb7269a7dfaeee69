"""Our PReLU against PyTorch's."""

import pytest
import torch
from torch import nn

from panet_plugin.archs.prelu import PReLU


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("slope", [0.25, 0.0, -0.5])
def test_it_is_pytorchs(dtype, slope):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 7).to(dtype, memory_format=torch.channels_last)
    x[0, 0, 0, 0] = 0
    gradient = torch.randn_like(x)
    results = []
    for module in (PReLU(), nn.PReLU()):
        nn.init.constant_(module.to(dtype).weight, slope)
        results.append((module(own := x.clone().requires_grad_()), own, module.weight))
    (found, *ours), (expected, *others) = results
    assert torch.equal(found, expected)
    (of_x, of_slope), (expected_of_x, _) = (
        torch.autograd.grad(result, inputs, gradient) for result, inputs in ((found, ours), (expected, others))
    )
    assert torch.equal(of_x, expected_of_x)
    exact = (gradient.double() * x.double().clamp(max=0)).sum()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    assert abs(of_slope.item() - exact) <= tolerance * max(1, abs(exact))


@pytest.mark.parametrize("slope", [0.25, -0.5])
def test_what_is_not_finite_stays_so(slope):
    module = PReLU()
    nn.init.constant_(module.weight, slope)
    inputs = torch.tensor([torch.inf, -torch.inf, torch.nan])
    found, expected = (one(inputs) for one in (module, lambda x: nn.functional.prelu(x, module.weight)))
    assert torch.equal(found[:2], expected[:2]) and found[2].isnan()


def test_only_what_needs_one_gets_a_gradient():
    module = PReLU()
    module(torch.randn(3)).sum().backward()
    assert module.weight.grad is not None
    module.weight.requires_grad_(False)
    module(x := torch.randn(3, requires_grad=True)).sum().backward()
    assert x.grad is not None


def test_it_compiles_without_graph_breaks():
    module, x = PReLU(), torch.randn(2, 4, requires_grad=True)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x).sum(), module.weight), torch.autograd.grad(module(x).sum(), module.weight)
    )


def test_weights_are_pytorchs():
    module = PReLU()
    module.load_state_dict(nn.PReLU().state_dict())
    assert isinstance(module, nn.PReLU)
    with torch.no_grad():
        assert torch.equal(module(torch.tensor([-4.0, 4.0])), torch.tensor([-1.0, 4.0]))
