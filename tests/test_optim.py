"""Muon for convolutions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from panet_plugin.optim import MuonAdam, orthogonalize


@pytest.mark.parametrize("shape", [(16, 16), (16, 40), (40, 16)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape):
    torch.manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(2, *shape, dtype=torch.float64), full_matrices=False)
    s = torch.linspace(0.1, 5, s.shape[1], dtype=torch.float64).expand_as(s)
    turned = u.mT @ orthogonalize(u @ s.diag_embed() @ v) @ v.mT
    diagonal = turned.diagonal(dim1=1, dim2=2)
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all()
    torch.testing.assert_close(turned, diagonal.diag_embed(), atol=1e-9, rtol=0)
    assert not orthogonalize(torch.zeros(1, *shape)).any()


def layers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 1))
    return net.to(memory_format=torch.channels_last)


def loss_of(net, seed):
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return F.l1_loss(net(x), x.mean(dim=1, keepdim=True)[..., 3:-3, 3:-3].expand(-1, 16, -1, -1))


def train(net, optimizer, steps, start=0):
    losses = []
    for step in range(start, start + steps):

        def closure(step=step):
            optimizer.zero_grad()
            loss = loss_of(net, step)
            loss.backward()
            return loss.item()

        losses.append(optimizer.step(closure))
    return losses


def test_small_weights_and_biases_are_adams_and_matrices_turn():
    ours, adam = layers(), layers()
    optimizers = [MuonAdam(ours.parameters(), lr=1e-3), torch.optim.Adam(adam.parameters(), lr=1e-3)]
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    for net, optimizer in zip((ours, adam), optimizers, strict=True):
        train(net, optimizer, 1)
    for name, parameter in ours.named_parameters():
        step = parameter.detach() - before.pop(0)
        if name in ("1.weight", "2.weight", "3.weight"):
            values = torch.linalg.svdvals(step.flatten(1))
            size = 1e-3 * 0.2 * max(step.flatten(1).shape) ** 0.5
            assert values.max() < 1.3 * size and values.median() > 0.6 * size
            assert (step * parameter.grad).sum() < 0
        else:
            torch.testing.assert_close(parameter, adam.get_parameter(name))
    for net, optimizer in zip((ours, adam), optimizers, strict=True):
        optimizer.param_groups[0]["lr"] = 0.0 if net is ours else 1e-3
        train(net, optimizer, 1, start=1)
    assert not torch.equal(ours[0].weight, adam[0].weight)  # the rate of now is used


def test_it_goes_on_from_its_state():
    whole, half = layers(), layers()
    train(whole, MuonAdam(whole.parameters()), 4)
    first = MuonAdam(half.parameters())
    train(half, first, 2)
    second = MuonAdam(half.parameters())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(half, second, 2, start=2)
    for one, other in zip(whole.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_it_learns_and_leaves_what_has_no_gradient():
    net = layers()
    net[3].requires_grad_(False)
    frozen = net[3].weight.clone()
    optimizer = MuonAdam(net.parameters(), lr=5e-3)
    losses = train(net, optimizer, 200)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert torch.equal(net[3].weight, frozen)


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"momentum": 1}, {"betas": (0.9, 1)}, {"eps": 0}, {"smallest": 0}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="must be"):
        MuonAdam(layers().parameters(), **wrong)
