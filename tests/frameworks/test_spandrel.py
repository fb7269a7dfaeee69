"""Our networks through spandrel's own loader."""

import golden_networks as golden
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spandrel import MAIN_REGISTRY, ModelLoader, UnsupportedDtypeError, UnsupportedModelError

from panet_plugin.archs import PAEDSR, RNAN, PANet
from panet_plugin.archs.pyramid_attention import attention_window
from panet_plugin.frameworks.spandrel import install
from panet_plugin.weights import CheckpointError, list_bundled, load_official, write_checkpoint

IDS = ["PANet", "PAEDSR", "RNAN"]
AS_PUBLISHED = pytest.mark.filterwarnings("ignore:.*published ones are assumed", "ignore:an RNAN without mean shifts")


@pytest.fixture(scope="module", autouse=True)
def _installed():
    install()


def load(state):
    return ModelLoader().load_from_state_dict(state)


def test_install_is_idempotent():
    count = len(MAIN_REGISTRY)
    assert install() == []
    assert len(MAIN_REGISTRY) == count
    assert [arch.architecture.id for arch in MAIN_REGISTRY if arch.architecture.id in IDS] == IDS


@AS_PUBLISHED
@pytest.mark.parametrize("wrapper", [None, "params_ema", "state_dict"])
@pytest.mark.parametrize("name", golden.names("panet_") + golden.names("pa_edsr_") + golden.names("rnan_"))
def test_the_originals(name, wrapper):
    state, about = golden.state_dict(name), golden.description(name)["args"]
    if wrapper == "state_dict":
        state = {f"generator.{key}": value for key, value in state.items()}
    model = load({wrapper: state} if wrapper else state)
    scale = about.get("scale", 1)
    assert model.architecture.id == {"pan": "PANet", "pa_": "PAEDSR", "rna": "RNAN"}[name[:3]]
    assert (model.scale, model.purpose) == (scale, "SR" if scale > 1 else "Restoration")
    assert model.input_channels == model.output_channels == about["n_colors"]
    depth = f"{about['n_resgroups']}ng" if "n_resgroups" in about else f"{about['n_resblocks']}nb"
    assert model.tags == [f"{about['n_feats']}nf", depth]
    assert not model.model.training
    if wrapper is None:
        stored = golden.arrays(name)
        with torch.no_grad():
            output = model.model.double()(stored["input"].double())
        torch.testing.assert_close(output, stored["output"].double(), rtol=0, atol=1e-5)


def build(kind, scale, channels, mid_channels, depth, reduction):
    if kind == "RNAN":
        return RNAN(scale, channels, mid_channels, num_groups=depth + 2)
    sizes = {"in_channels": channels, "mid_channels": mid_channels, "num_blocks": depth}
    attention = {"reduction": reduction}
    # The published scale of PA-EDSR's residuals is not 1.
    return PANet(**sizes, attention=attention) if kind == "PANet" else PAEDSR(scale, **sizes, attention=attention)


@AS_PUBLISHED
@settings(max_examples=25)
@given(
    kind=st.sampled_from(IDS),
    scale=st.sampled_from([1, 2, 3, 4]),
    channels=st.sampled_from([1, 3, 4]),
    mid_channels=st.sampled_from([4, 6, 8]),
    depth=st.integers(0, 5),
    reduction=st.sampled_from([1, 2]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_a_network_is_rebuilt_from_its_own_state_dict(kind, scale, channels, mid_channels, depth, reduction, size):
    network = build(kind, scale, channels, mid_channels, depth, reduction).eval()
    scale = 1 if kind == "PANet" else scale
    model = load(network.state_dict())
    assert type(model.model) is type(network)
    assert (model.architecture.id, model.scale, model.input_channels) == (kind, scale, channels)
    assert model.size_requirements.minimum == (1 if kind == "RNAN" else 2)
    image = torch.rand(1, channels, *size)
    output = model(image)
    assert output.shape == (1, channels, size[0] * scale, size[1] * scale)
    if min(size) >= model.size_requirements.minimum:
        with torch.no_grad():
            torch.testing.assert_close(output, network(image).clamp(0, 1), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_we_wrote(suffix, tmp_path):
    network = RNAN(2, mid_channels=4, num_groups=3)
    write_checkpoint(network, tmp_path / f"own{suffix}")
    model = ModelLoader().load_from_file(tmp_path / f"own{suffix}")
    image = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(model(image), network(image).clamp(0, 1), rtol=0, atol=0)


@AS_PUBLISHED
@pytest.mark.parametrize("kind", IDS)
def test_precision(kind):
    network = build(kind, 1, 3, 8, 1, 2)
    model = load(network.state_dict())
    with pytest.raises(UnsupportedDtypeError):
        model.half()
    output = model.bfloat16()(torch.rand(1, 3, 6, 6).bfloat16())
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()


@AS_PUBLISHED
@pytest.mark.parametrize("kind", IDS)
def test_loading_is_strict(kind):
    state = build(kind, 2, 3, 4, 1, 1).state_dict()
    with pytest.raises(CheckpointError, match=r"tail\.bias"):
        load({key: value for key, value in state.items() if key != "tail.bias"})
    with pytest.raises(CheckpointError, match="stranger"):
        load({**state, "stranger": torch.zeros(1)})


def test_others_are_left_to_spandrel():
    with pytest.raises(UnsupportedModelError):
        load({"head.weight": torch.zeros(4, 3, 3, 3), "body.conv.weight": torch.zeros(4, 4, 3, 3)})
    theirs = {"body.0.weight": torch.zeros(8, 3, 3, 3), "body.0.bias": torch.zeros(8), "body.1.weight": torch.zeros(8)}
    theirs |= {"body.2.weight": torch.zeros(12, 8, 3, 3), "body.2.bias": torch.zeros(12)}
    assert load(theirs).architecture.id == "Compact"


@pytest.mark.parametrize("path", list(list_bundled()), ids=lambda path: path.stem)
def test_bundled_networks_load_from_their_tensors(path):
    network = load_official(path)
    x = torch.rand(1, network.arguments["in_channels"], 40, 44)
    model = ModelLoader().load_from_file(path).model
    with torch.no_grad(), attention_window(network, "trained", network.trained_patch):
        torch.testing.assert_close(model(x), network(x))
