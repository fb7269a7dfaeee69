"""Our networks against the outputs of the original ones, in float64."""

import golden_networks as golden
import pytest
import torch

from panet_plugin.archs import PAEDSR, RNAN, PANet, PyramidAttention
from panet_plugin.ops import custom_op, fused
from panet_plugin.weights import load_official

EMBEDDINGS = {"conv_match_L_base": "query", "conv_match": "key", "conv_assembly": "value"}


def load_block(name):
    kwargs = golden.description(name)["kwargs"]
    block = PyramidAttention(
        channels=kwargs["channel"],
        levels=kwargs["level"],
        reduction=kwargs["reduction"],
        ksize=kwargs["ksize"],
        softmax_scale=kwargs["softmax_scale"],
        hard=not kwargs["average"],
        res_scale=kwargs["res_scale"],
    ).double()
    state = golden.state_dict(name)
    del state["escape_NaN"]
    block.load_state_dict({our_name(key): value for key, value in state.items()})
    return block


def our_name(key):
    embedding, rest = key.split(".", 1)
    return f"{EMBEDDINGS[embedding]}.{rest}"


@pytest.mark.parametrize(
    ("implementation", "name"),
    [
        (implementation, name)
        for implementation in ("auto", "dense", "sdpa")
        for name in golden.names("pyramid_attention_")
        if implementation != "sdpa" or not name.endswith("_hard")
    ],
)
def test_the_block_and_its_gradients(implementation, name):
    block, stored = load_block(name), golden.arrays(name)
    block.implementation = implementation
    features = stored["input"].double().requires_grad_()
    output = block(features)
    torch.testing.assert_close(output, stored["output"].double(), rtol=0, atol=1e-5)
    if "grad_input" not in stored:
        return
    (output * golden.cotangent(name, output.shape)).sum().backward()
    torch.testing.assert_close(features.grad, stored["grad_input"].double(), rtol=1e-6, atol=1e-5)
    gradients = {key.removeprefix("grad/"): value for key, value in stored.items() if key.startswith("grad/")}
    parameters = dict(block.named_parameters())
    assert {our_name(key) for key in gradients} == set(parameters)
    for key, expected in gradients.items():
        torch.testing.assert_close(parameters[our_name(key)].grad, expected.double(), rtol=1e-6, atol=1e-5)


@pytest.mark.skipif(not fused.has_bfloat16(), reason="the processor does not multiply bfloat16")
@pytest.mark.parametrize(
    ("bfloat16", "least", "most"), [(False, 0, 1e-5), (True, 1e-4, 2e-2)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("name", [name for name in golden.names("pyramid_attention_") if not name.endswith("_hard")])
def test_the_block_by_the_kernel(name, bfloat16, least, most, monkeypatch):
    # The kernel alone: on some processors PyTorch's switch changes the convolutions of the embeddings, too.
    monkeypatch.setattr(custom_op, "float32_products", lambda device: "bf16" if bfloat16 else "ieee")
    block, features = load_block(name), golden.arrays(name)["input"]

    def run(implementation, dtype):
        block.to(dtype).zero_grad()
        block.implementation = implementation
        x = features.to(dtype, copy=True).requires_grad_()
        output = block(x)
        (output * golden.cotangent(name, output.shape).to(dtype)).sum().backward()
        return [(output - block.res_scale * x).detach(), x.grad, block.query[0].weight.grad, block.value[0].weight.grad]

    expected = run("dense", torch.float64)
    for mine, theirs in zip(run("fused", torch.float32), expected, strict=True):
        assert least < ((mine - theirs).square().mean() / theirs.square().mean()).sqrt() < most


def test_every_kind_of_golden_is_there():
    assert len(golden.names("pyramid_attention_")) == 6
    assert golden.names("panet_") == ["panet_color", "panet_gray"]
    assert golden.names("pa_edsr_") == ["pa_edsr_x2", "pa_edsr_x3", "pa_edsr_x4"]
    assert golden.names("rnan_") == ["rnan_car", "rnan_dn", "rnan_sr"]


@pytest.mark.parametrize("name", golden.names("panet_") + golden.names("pa_edsr_") + golden.names("rnan_"))
def test_the_networks(name):
    about = golden.description(name)
    network, stored = load_official(golden.state_dict(name), rgb_range=1).double(), golden.arrays(name)
    assert type(network) is (RNAN if about["official"] == "RNAN" else PAEDSR if "scale" in about["args"] else PANet)
    with torch.no_grad():
        output = network(stored["input"].double())
    # Softmax over the keys instead of the queries would change RNAN's outputs by no more than 4e-7 to 4e-6.
    atol = 2e-7 if type(network) is RNAN else 1e-5
    torch.testing.assert_close(output, stored["output"].double(), rtol=0, atol=atol)
