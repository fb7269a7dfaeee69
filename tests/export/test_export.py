"""What is exported does what the network does, at sizes that it was not exported with, and without this project."""

import sys

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from panet_plugin.archs import PAEDSR, RNAN, PANet, insert_pyramid_attention
from panet_plugin.commands import export
from panet_plugin.export import ExportError, export_network
from panet_plugin.weights import load_official, write_checkpoint

# 90 * 0.7 is 62 in double precision and 63 in single precision.
SIZES = ((1, 12, 90), (3, 21, 16))
# A window that some of the sides are within and others are not.
SETTINGS = {"scales": [1, 0.7], "softmax_scale": 3.0, "res_scale": 0.5, "window": 15}


def panet():
    return PANet(mid_channels=8, num_blocks=1, attention=SETTINGS)


def pa_edsr(scale=3):
    return PAEDSR(
        scale,
        mid_channels=8,
        num_blocks=2,
        attention={"levels": 2, "ksize": 1, "res_scale": 1, "residual_init": "zero"},
    )


def rnan():
    return RNAN(in_channels=1, mid_channels=8, num_groups=2)


def inserted():
    """Return a network of another kind with the block in it."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3, 3, padding=1))
    return insert_pyramid_attention(network, "1", levels=2, hard=True)


def draw(make, **arguments):
    """Return a network of random weights, also where it starts as the identity."""
    torch.manual_seed(0)
    network = make(**arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.5)
    return network


def check(network, run):
    channels = next(iter(network.parameters())).shape[1]
    for number, *size in SIZES:
        images = torch.rand(number, channels, *size, generator=torch.Generator().manual_seed(1))
        expected = network(images).detach()
        torch.testing.assert_close(run(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("make", [panet, pa_edsr, rnan])
def test_onnx(make, tmp_path):
    network, path = draw(make), tmp_path / "network.onnx"
    differences = export_network(network, path, opset=18 if make is rnan else None)
    assert len(differences) == 5
    assert all(difference < 1e-5 for _, difference in differences)
    session = onnxruntime.InferenceSession(path)
    check(network, lambda images: torch.from_numpy(session.run(None, {"input": images.numpy()})[0]))
    model = onnx.load(path)
    assert [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim] == [
        *("batch", "", "height", "width"),
    ]
    versions = {opset.domain: opset.version for opset in model.opset_import}
    assert set(versions) == {""}
    assert make is not rnan or versions[""] == 18
    # One row of scores at a time.
    assert sum(node.op_type == "Scan" for node in model.graph.node) == (2 if make is rnan else 1)


def test_torch_export(tmp_path):
    network, path = draw(panet), tmp_path / "network.pt2"
    export_network(network, path)
    program = torch.export.load(path)
    check(network, program.module())
    assert not [node for node in program.graph.nodes if "panet_plugin" in str(node.target)]


@pytest.mark.parametrize("make", [panet, pa_edsr, rnan, inserted])
def test_torchscript(make, tmp_path):
    network, path = draw(make), tmp_path / "network.pt"
    export_network(network, path)
    script = torch.jit.load(path)
    check(network, script)
    assert "panet_plugin::" not in str(script.inlined_graph)


@pytest.mark.parametrize(
    "network",
    [
        PANet(1, 8, 2, 0.3, {"levels": 3, "ksize": 1, "hard": True, "reduction": 4}),
        PANet(3, 4, 1, attention={"scales": [1, 0.55], "softmax_scale": 2.5, "res_scale": 0.2, "ksize": 5}),
        PANet(3, 4, 0, attention={"residual_init": "zero", "implementation": "stream"}),
        PAEDSR(4, 3, 8, 2, 0.7, [0.1, 0.2, 0.3], {"levels": 2, "hard": True, "reduction": 2, "res_scale": 0.4}),
        PAEDSR(3, 1, 8, 1, attention={"scales": (0.9,), "ksize": 1}),
        PAEDSR(2, 3, 8, 1, attention=False, image_residual=True),
        PANet(3, 4, 2, attention=False),
        RNAN(4, 3, 6, 3, mean=[0.5, 0.4, 0.3]),
    ],
    ids=lambda network: type(network).__name__,
)
def test_safetensors_needs_nothing_else(network, tmp_path):
    path = tmp_path / "network.safetensors"
    assert all(difference == 0 for _, difference in export_network(network, path))
    loaded = load_official(path)
    assert repr(loaded) == repr(network)
    assert loaded.arguments.keys() == network.arguments.keys()
    images = torch.rand(1, network.arguments["in_channels"], 9, 11)
    assert torch.equal(loaded(images), network.eval()(images))


def test_the_command_exports_the_window_of_the_training_unless_told_otherwise(tmp_path, monkeypatch, capsys):
    network = draw(pa_edsr)
    network.trained_patch = 12
    write_checkpoint(network, tmp_path / "net.pth")
    exported = []

    def spy(network, path, opset):
        exported.append([module.window for module in network.modules() if hasattr(module, "window")])
        return []

    monkeypatch.setattr(export, "export_network", spy)

    def run(target, *options):
        monkeypatch.setattr(
            sys, "argv", ["export", "--weights", str(tmp_path / "net.pth"), "--out", str(tmp_path / target), *options]
        )
        export.main()
        return capsys.readouterr().out

    assert "M parameters, attention in a window of 12\n" in run("a.onnx")
    assert "M parameters, attention in a window of 20\n" in run("a.pt2", "--window", "20")
    # Whoever loads weights chooses the window then.
    for target, *options in (("a.pt", "--window", "none"), ("a.safetensors",)):
        assert run(target, *options).endswith("M parameters\n")
    assert exported == [[12], [20], [None], [None]]
    with pytest.raises(SystemExit):
        run("a.safetensors", "--window", "20")
    assert "--window applies only to programs" in capsys.readouterr().err


def test_the_network_stays_as_it_was(tmp_path):
    network = draw(panet).train()
    export_network(network, tmp_path / "network.pt")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


class Sized(nn.Module):
    """Computes with the width in Python, which a trace cannot follow."""

    def forward(self, x):
        return x * float(x.shape[-1])


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_what_does_something_else_is_not_left_behind(tmp_path):
    path = tmp_path / "network.pt"
    path.write_bytes(b"before")
    with pytest.raises(
        ExportError, match=r"Sized as TorchScript: differs from the network by .* shape \(1, 3, 24, 40\)"
    ):
        export_network(Sized(), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"Sized as torch\.export: export failed"):
        export_network(Sized(), tmp_path / "network.pt2")
    with pytest.raises(ExportError, match="only PANet, PAEDSR and RNAN can be stored"):
        export_network(Sized(), tmp_path / "network.safetensors")
    with pytest.raises(ExportError, match="returns a tuple"):
        export_network(Pair(), tmp_path / "network.pt")
    with pytest.raises(ExportError, match="accepts neither RGB nor gray images"):
        export_network(nn.Conv2d(2, 2, 1), tmp_path / "network.pt")
    with pytest.raises(ValueError, match=r"network\.pth: expected a file that ends in one of \.onnx, \.pt2, \.pt"):
        export_network(Sized(), tmp_path / "network.pth")
    with pytest.raises(ValueError, match=r"opset applies only to \.onnx, got 18"):
        export_network(Sized(), tmp_path / "network.pt", opset=18)
    with pytest.raises(
        ValueError, match=r"network\.onnx: opset must be at least 18, the lowest that PyTorch supports, got 16"
    ):
        export_network(Sized(), tmp_path / "network.onnx", opset=16)
    with pytest.raises(ExportError, match=r"opset"):
        export_network(Sized(), tmp_path / "network.onnx", opset=1000)
    assert not list(tmp_path.iterdir())
