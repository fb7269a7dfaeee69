"""Archs made of archs: the other framework's, and those with pyramid attention inserted."""

import re
from pathlib import Path

import pytest
import small_runs
import torch
import yaml
from mmcv.cnn import build_plugin_layer
from mmengine.registry import MODELS

from panet_plugin.catalog.arch_table import EXAMPLES, TITLED
from panet_plugin.frameworks import basicsr, mmagic
from panet_plugin.frameworks.basicsr.archs import ARCH_REGISTRY, MMagicArch
from panet_plugin.frameworks.basicsr.archs import build_arch as build_basicsr
from panet_plugin.frameworks.mmagic.archs import BasicSRArch
from panet_plugin.weights import read_state_dict

ROOT = Path(__file__).parents[2]
BUILDERS = {title: bridge.load("archs").build_arch for title, bridge in TITLED.items()}
SHOWN = {
    "BasicSR": ("EDSR", "RCAN", "RRDBNet", "MSRResNet", "SwinIR", "SRVGGNetCompact_basicsr"),
    "MMagic": ("EDSRNet", "RDNNet", "RRDBNet", "MSRResNet", "SwinIRNet", "NAFNet", "Restormer"),
}
EXAMPLE = {(example.framework, example.arch): example for example in EXAMPLES}
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 2, "upscale": 2}
RCAN = {**EDSR, "type": "RCAN", "num_feat": 16, "num_group": 2, "num_block": 1}
RDN = {"type": "RDNNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 2, "num_layers": 2}
MSR = {"type": "MSRResNet", "in_channels": 3, "out_channels": 3, "mid_channels": 4, "num_blocks": 2}


def with_attention(arch, at="body.0", **options):
    return {"type": "WithPyramidAttention", "arch": arch, "at": at, "attention": {"levels": 2}, **options}


@pytest.mark.parametrize(("framework", "name"), [(key, name) for key, names in SHOWN.items() for name in names])
@pytest.mark.parametrize("other", [False, True], ids=["own", "other"])
def test_forward_and_training_steps(framework, name, other):
    """In its own framework, and under the other one."""
    torch.manual_seed(0)
    example = EXAMPLE[framework, name]
    arch, build = {"type": name, **example.arguments}, BUILDERS[framework]
    if other:
        arch = {"type": f"{framework}Arch", "arch": arch}
        build = BUILDERS["MMagic" if framework == "BasicSR" else "BasicSR"]
    network = build(with_attention(arch, example.at, residual_init="zero"))
    plain = BUILDERS[framework]({"type": name, **example.arguments})
    assert type(network) is type(plain)
    with pytest.warns(UserWarning, match="those of the network are kept"):
        network.load_state_dict(plain.state_dict())
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(network.eval()(images), plain.eval()(images))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    block = network.get_submodule(f"{example.at}.pyramid_attention")
    before = {key: value.clone() for key, value in block.state_dict().items()}
    for _ in range(2):
        optimizer.zero_grad()
        (network.train()(images) - 0.5).square().mean().backward()
        optimizer.step()
    for key in ("gain", "query.0.weight", "key.0.weight", "value.0.weight"):
        assert not torch.equal(block.state_dict()[key], before[key]), key


def test_the_other_frameworks_archs_are_themselves():
    network = MODELS.build({"type": "BasicSRArch", "arch": EDSR})
    assert type(network).__module__ == "basicsr.archs.edsr_arch"
    network.load_state_dict(build_basicsr(EDSR).state_dict())
    network = build_basicsr({"type": "MMagicArch", "arch": MSR})
    assert type(network).__module__ == "mmagic.models.editors.srgan.sr_resnet"
    network.load_state_dict(MODELS.build({"_scope_": "mmagic", **MSR}).state_dict())


@pytest.mark.parametrize(
    "arch",
    [
        with_attention({"type": "BasicSRArch", "arch": EDSR}),
        {"type": "BasicSRArch", "arch": with_attention(EDSR)},
        {"type": "BasicSRArch", "arch": {"type": "MMagicArch", "arch": with_attention(MSR, "trunk_net.0")}},
        with_attention({"type": "PANet", "mid_channels": 4, "num_blocks": 2}, "body.blocks.0", where="before"),
    ],
)
def test_they_nest(arch):
    network = MODELS.build(arch)
    assert any("pyramid_attention.query" in name for name in network.state_dict())
    assert network(torch.rand(1, 3, 10, 9)).ndim == 4


def test_nowhere_is_the_arch_itself():
    torch.manual_seed(0)
    network = build_basicsr(with_attention(EDSR, []))
    torch.manual_seed(0)
    expected = build_basicsr(EDSR).state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("build", BUILDERS.values(), ids=list(BUILDERS))
def test_errors(build):
    panet = {"type": "PANet", "mid_channels": 4, "num_blocks": 2}
    with pytest.raises(KeyError, match="Nothing"):
        build({"type": "Nothing"})
    with pytest.raises(ValueError, match=r"body\.9.*"):
        build(with_attention(panet, "body.9"))
    for options in ({"unknown": 1}, {"attention": {"unknown": 1}}):
        with pytest.raises(TypeError, match="unknown"):
            build(with_attention(panet, "body", **options))
    with pytest.raises(TypeError, match="num_block"):
        build(with_attention({**panet, "num_block": 1}, "body"))


def test_mmagic_initializes_and_trains_it():
    model = MODELS.build(
        {
            "_scope_": "mmagic",
            "type": "BaseEditModel",
            "generator": with_attention(MSR, "trunk_net.0", residual_init="zero"),
            "pixel_loss": {"type": "L1Loss"},
            "data_preprocessor": {"type": "DataPreprocessor"},
        }
    )
    torch.manual_seed(0)
    model.init_weights()
    block = model.generator.trunk_net[0].pyramid_attention
    assert not block.gain.any()
    low = torch.rand(1, 3, 8, 8)
    expected = model.generator(low)
    assert torch.equal(model.generator(low), expected)
    (expected - 0.5).square().mean().backward()
    assert block.gain.grad.any()


@pytest.mark.parametrize("framework", ["mmagic", "basicsr"])
def test_the_trainers_train_an_arch_of_the_other_framework_with_attention(framework, run_tool, tmp_path):
    """RCAN under MMagic, RDN under BasicSR."""
    other = {"type": "BasicSRArch", "arch": RCAN}
    if framework == "basicsr":
        other = {"type": "MMagicArch", "arch": {**RDN, "channel_growth": 4, "upscale_factor": 2}}
    network = with_attention(other, "body.0" if framework == "mmagic" else "rdbs.0", residual_init="zero")
    base = str(ROOT / small_runs.config(framework))
    if framework == "mmagic":
        config, checkpoint = tmp_path / "other.py", tmp_path / "run" / "iter_2.pth"
        text = f"_base_ = [{base!r}]\nmodel = dict(generator=dict(_delete_=True, **{network!r}))\n"
    else:
        config, checkpoint = tmp_path / "other.yml", tmp_path / "run/experiments/other/models/net_g_2.pth"
        text = yaml.safe_dump({"_base_": [base], "name": "other", "network_g": {"_delete_": True, **network}})
    config.write_text(text)
    settings = small_runs.changes(framework, iterations=2).items()
    options = [
        f"{key}={str(value).replace(' ', '')}"
        for key, value in settings
        if not key.startswith(("model.", "network_g."))
    ]
    output = run_tool("train.py", config, "--work-dir", tmp_path / "run", "--cfg-options", *options)
    assert small_runs.validations(framework, output)
    weights = read_state_dict(checkpoint)
    assert any(value.any() for name, value in weights.items() if name.endswith("pyramid_attention.gain"))
    plain = BUILDERS["BasicSR"](other["arch"]) if framework == "mmagic" else build_basicsr(other)
    assert set(plain.state_dict()) == {name for name in weights if ".pyramid_attention." not in name}


def test_mmagics_initialization_is_applied_under_basicsr():
    arch = {"type": "ResnetGenerator", "in_channels": 3, "out_channels": 3, "base_channels": 16, "num_blocks": 1}
    network = build_basicsr({"type": "MMagicArch", "arch": arch})
    assert network.model[1].conv.weight.std().item() == pytest.approx(0.02, rel=0.1)
    with torch.device("meta"):
        assert next(build_basicsr({"type": "MMagicArch", "arch": arch}).parameters()).is_meta


def test_a_pretrained_base_loads_strictly_in_basicsr(tmp_path):
    from basicsr.models.sr_model import SRModel

    pretrained = build_basicsr(EDSR)
    torch.save({"params": pretrained.state_dict()}, tmp_path / "edsr.pth")
    options = {"num_gpu": 0, "dist": False, "is_train": False, "network_g": with_attention(EDSR, residual_init="zero")}
    path = {"pretrain_network_g": str(tmp_path / "edsr.pth"), "strict_load_g": True}
    with pytest.warns(UserWarning, match=re.escape("body.0.pyramid_attention.*")):
        model = SRModel({**options, "path": path})
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(model.net_g(images), pretrained(images))


def test_a_pretrained_base_loads_strictly_in_mmagic(tmp_path):
    from mmengine.runner import load_checkpoint

    pretrained = BasicSRArch(EDSR)
    torch.save({"state_dict": pretrained.state_dict()}, tmp_path / "edsr.pth")
    network = MODELS.build(with_attention({"type": "BasicSRArch", "arch": EDSR}, residual_init="zero"))
    with pytest.warns(UserWarning, match=re.escape("body.0.pyramid_attention.*")):
        load_checkpoint(network, str(tmp_path / "edsr.pth"), strict=True)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(images), pretrained(images))


def test_names_are_registered():
    assert {"MMagicArch", "WithPyramidAttention"} <= set(ARCH_REGISTRY.keys())
    assert ARCH_REGISTRY.get("MMagicArch") is MMagicArch is basicsr.MMagicArch
    for name in ("BasicSRArch", "WithPyramidAttention", "PyramidAttention", "PyramidNonLocal2d"):
        assert MODELS.get(name).__module__.startswith("panet_plugin."), name


def test_plugin_layer_of_mmcv():
    name, layer = build_plugin_layer({"type": "PyramidAttention", "levels": 3}, postfix=2, in_channels=8)
    assert name == "pyramid_attention2"
    assert isinstance(layer, mmagic.PyramidAttention)
    assert len(layer.scales) == 3
    assert layer(torch.rand(1, 8, 9, 9)).shape == (1, 8, 9, 9)
    for wrong in ({"unknown": 1}, {"channels": 8}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            build_plugin_layer({"type": "PyramidAttention", **wrong}, in_channels=8)


def test_in_the_place_of_non_local():
    features = torch.rand(1, 8, 9, 9)
    layers = {}
    for kind in ("NonLocal2d", "PyramidNonLocal2d"):
        config = {"type": kind, "in_channels": 8, "reduction": 16}
        name, layers[kind] = build_plugin_layer(config, postfix="_a")
        assert name == "nonlocal_block_a"
        torch.testing.assert_close(layers[kind](features), features, rtol=0, atol=0)
        assert not torch.equal(build_plugin_layer({**config, "zeros_init": False})[1](features), features)
    ours = build_plugin_layer({"type": "PyramidNonLocal2d", "reduction": 4, "levels": 1}, in_channels=8)[1]
    assert ours.query[0].out_channels == 2
    assert ours.scales == (1.0,)
    with pytest.raises(TypeError, match="mode"):
        build_plugin_layer({"type": "PyramidNonLocal2d", "in_channels": 8, "mode": "dot_product"})
