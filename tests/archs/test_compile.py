"""``torch.compile`` takes every arch whole, and one program does for all sizes."""

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from panet_plugin.archs import PAEDSR, RNAN, PANet, PyramidAttention
from panet_plugin.ops import IMPLEMENTATIONS, fused

#: docs/export.md says so.
GRAPH_BREAKS = 0

NETWORKS = {
    "PANet": lambda: PANet(mid_channels=8, num_blocks=2, attention={"levels": 2}),
    "PAEDSR": lambda: PAEDSR(mid_channels=8, num_blocks=2, attention={"levels": 2}),
    "RNAN": lambda: RNAN(mid_channels=8, num_groups=2),
    # Triton's kernels are for CUDA.
    **{
        name: lambda name=name: nn.Sequential(nn.Conv2d(3, 8, 1), PyramidAttention(8, levels=2, implementation=name))
        for name in IMPLEMENTATIONS
        if name != "triton" and (name != "fused" or fused.is_available())
    },
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_one_program_without_graph_breaks_for_all_sizes(make):
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    network = make()
    compiled = torch.compile(network, backend="aot_eager" if isinstance(network, PANet) else "eager", dynamic=True)
    for size in ((12, 14), (15, 11), (13, 20)):
        images = torch.rand(1, 3, *size)
        outputs = compiled(images), network(images)
        # Levels are resized by another operator in a program, to rounding in single precision.
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(*outputs, **close)
        gradients = [
            torch.autograd.grad(
                output.square().sum(), network[0].weight if isinstance(network, nn.Sequential) else network.head.weight
            )[0]
            for output in outputs
        ]
        torch.testing.assert_close(*gradients, **close)
    assert sum(counters["graph_break"].values()) == GRAPH_BREAKS
    assert counters["stats"]["unique_graphs"] == 1
