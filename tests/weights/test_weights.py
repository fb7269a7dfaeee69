import pickle
from pathlib import Path

import golden_networks as golden
import pytest
import torch

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.weights import CheckpointError, load_official, read_state_dict, write_checkpoint

NETWORKS = golden.names("panet_") + golden.names("pa_edsr_")


def assert_same(network, other):
    ours, theirs = network.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0)


@pytest.fixture(scope="module")
def official():
    return golden.state_dict("panet_color")


@pytest.mark.parametrize("name", NETWORKS)
def test_hyper_parameters_are_read_from_names_and_shapes(name):
    args = golden.description(name)["args"]
    network = load_official(golden.state_dict(name))
    assert not network.training
    assert network.head.weight.shape[:2] == (args["n_feats"], args["n_colors"])
    assert sum(hasattr(block, "conv1") for block in network.body.blocks) == args["n_resblocks"]
    reduction = 8 if "scale" in args else 2
    attention = network.body.blocks[args["n_resblocks"] // 2]
    assert attention.query[0].weight.shape == (args["n_feats"] // reduction, args["n_feats"], 1, 1)
    if "scale" in args:
        side = network(torch.zeros(1, args["n_colors"], 10, 11)).shape[-2:]
        assert side == (10 * args["scale"], 11 * args["scale"])
        assert attention.res_scale == args["res_scale"]


def published(network_class, kwargs):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network_class(**kwargs).parameters())


def test_parameter_counts_are_the_published_ones():
    assert round(published(PANet, {}) / 1e6, 3) == 5.957
    assert round(published(PANet, {"in_channels": 1}) / 1e6, 3) == 5.955
    assert round(published(PAEDSR, {"scale": 2}) / 1e6, 2) == 40.81


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"params": state},
        lambda state: {"params_ema": state, "params": {key: value + 1 for key, value in state.items()}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"params": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": {f"generator.{key}": value for key, value in state.items()}},
        lambda state: {
            "state_dict": {
                **{f"generator_ema.{key}": value for key, value in state.items()},
                **{f"generator.{key}": value + 1 for key, value in state.items()},
            },
            "meta": {"iter": 3},
        },
    ],
)
def test_wrappers_are_taken_off(official, wrap, tmp_path):
    expected = load_official(official)
    assert_same(load_official(wrap(official)), expected)
    torch.save(wrap(official), tmp_path / "wrapped.pth")
    assert_same(load_official(tmp_path / "wrapped.pth"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(official, dtype):
    half = {key: value.to(dtype) for key, value in official.items()}
    assert_same(load_official(half), load_official({key: value.float() for key, value in half.items()}))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["panet_gray", "pa_edsr_x3"])
def test_round_trip(name, suffix, tmp_path):
    network = load_official(golden.state_dict(name))
    path = tmp_path / "new" / f"converted{suffix}"
    write_checkpoint(network, path)
    assert_same(load_official(path), network)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_both_frameworks_names_share_one_copy_of_the_tensors(official, tmp_path):
    network = load_official(official)
    write_checkpoint(network, tmp_path / "both.pth")
    tensors = 4 * sum(value.numel() for value in network.state_dict().values())
    assert (tmp_path / "both.pth").stat().st_size < 1.2 * tensors
    content = torch.load(tmp_path / "both.pth", weights_only=True)
    assert list(content["params"]) == [key.removeprefix("generator.") for key in content["state_dict"]]


def test_a_failed_write_leaves_the_old_file(official, tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")

    def fail(file, content):
        file.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(load_official(official), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("weights.safetensors", b"old")]


def test_the_shared_slope_stays_shared(official):
    network = load_official(official)
    slopes = {id(block.activation.weight) for block in network.body.blocks if hasattr(block, "activation")}
    assert len(slopes) == 1


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda s: without(s, "tail.0.bias"), "tail.bias"),
        (lambda s: {**s, "extra.weight": torch.zeros(1)}, "extra.weight"),
        (lambda s: {**s, "tail.0.bias": torch.zeros(7)}, "tail.bias"),
        (lambda s: {"layer1.0.conv1.weight": torch.zeros(64, 3, 7, 7)}, "layer1.0.conv1.weight"),
        (lambda s: {}, "empty"),
        (lambda s: {"epoch": 3}, "'epoch' \\(int\\)"),
        (lambda s: [1, 2], "list"),
        (lambda s: {"module.head.0.weight": s["head.0.weight"], "tail.0.bias": s["tail.0.bias"]}, "tail.0.bias"),
    ],
)
def test_what_is_no_checkpoint_says_what_was_found(official, spoil, found, tmp_path):
    torch.save(spoil(official), tmp_path / "spoilt.pth")
    with pytest.raises(CheckpointError, match=found) as caught:
        load_official(tmp_path / "spoilt.pth")
    assert "spoilt.pth" in str(caught.value)


def test_a_mean_shift_for_another_range_is_refused():
    state = golden.state_dict("pa_edsr_x2")
    for key in ("sub_mean.bias", "add_mean.bias"):
        state[key] = state[key] * 255
    with pytest.raises(CheckpointError, match=r"\[0, 1\]"):
        load_official(state)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("legacy", [False, True])
def test_an_untrusted_pickle_is_not_executed(tmp_path, legacy):
    trace = tmp_path / "executed"
    torch.save({"state_dict": Bomb(trace)}, tmp_path / "bomb.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"bomb\.pth.*open"):
        read_state_dict(tmp_path / "bomb.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(CheckpointError, match=r"raw\.pth"):
        read_state_dict(tmp_path / "raw.pth")
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 truncated", bytes(1000)])
@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_a_damaged_file_is_named(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_state_dict(tmp_path / name)


def test_a_truncated_file_is_named(official, tmp_path):
    torch.save(official, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "part.pth").write_bytes(content[: int(share * len(content))])
        with pytest.raises(CheckpointError, match=r"part\.pth"):
            read_state_dict(tmp_path / "part.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_official(tmp_path / "none.pth")


def test_an_unknown_suffix_is_refused(official, tmp_path):
    with pytest.raises(ValueError, match=r"\.onnx"):
        write_checkpoint(load_official(official), tmp_path / "x.onnx")
