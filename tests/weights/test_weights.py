import os
import pickle
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor

import golden_networks as golden
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panet_plugin.archs import PAEDSR, RNAN, PANet
from panet_plugin.frameworks.trainings import is_whole
from panet_plugin.tasks import make_task
from panet_plugin.weights import (
    CheckpointError,
    identify,
    load_official,
    read_patch,
    read_state_dict,
    read_task,
    write_checkpoint,
)

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


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "network",
    [
        PANet(1, 8, 3, res_scale=0.5, attention={"levels": 2, "ksize": 1, "res_scale": 0.3, "softmax_scale": 4.0}),
        PAEDSR(3, mid_channels=8, num_blocks=2, res_scale=1.0, mean=(0.1, 0.2, 0.3), attention={"levels": 3}),
    ],
    ids=["PANet", "PAEDSR"],
)
def test_what_shapes_do_not_tell_is_in_the_file(network, suffix, tmp_path):
    write_checkpoint(network, tmp_path / f"own{suffix}")
    loaded = load_official(tmp_path / f"own{suffix}")
    features = torch.rand(1, network.arguments["in_channels"], 12, 10)
    torch.testing.assert_close(loaded(features), network(features), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_task_is_in_the_file(suffix, tmp_path):
    network = PANet(1, 4, 1)
    for task in (None, make_task("artifact_reduction", quality=20), make_task("denoising", sigma=[0, 55], gray=True)):
        write_checkpoint(network, tmp_path / f"own{suffix}", task)
        assert read_task(tmp_path / f"own{suffix}") == task
        assert_same(load_official(tmp_path / f"own{suffix}"), network)


@pytest.mark.parametrize(
    "task", ["{", "3", '{"sigma": 3}', '{"name": "magic"}', '{"name": "denoising", "sigma": "high"}', '{"name": []}', 3]
)
def test_a_spoilt_task_is_refused(task, tmp_path):
    torch.save({"params": PANet(1, 4, 1).state_dict(), "panet_plugin_task": task}, tmp_path / "spoilt.pth")
    with pytest.raises(CheckpointError, match=r"spoilt\.pth: .*panet_plugin_task"):
        read_task(tmp_path / "spoilt.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_patches_of_the_training_are_in_the_file(suffix, tmp_path):
    network, path = PANet(1, 4, 1, attention={"reduction": 2}), tmp_path / f"net.{suffix}"
    write_checkpoint(network, path)
    assert read_patch(path) is None and load_official(path).trained_patch is None
    network.trained_patch = 32
    write_checkpoint(network, path)
    assert read_patch(path) == load_official(path).trained_patch == 32


@pytest.mark.parametrize("patch", ["0", "-3", "many", 2.5, [4], "99999999"])
def test_spoilt_patches_are_refused(patch, tmp_path):
    write_checkpoint(PANet(1, 4, 1, attention={"reduction": 2}), tmp_path / "net.pth")
    torch.save(
        {**torch.load(tmp_path / "net.pth", weights_only=True), "panet_plugin_patch": patch}, tmp_path / "net.pth"
    )
    with pytest.raises(
        CheckpointError, match=r"net\.pth: expected 'panet_plugin_patch' to be a number of pixels, found"
    ):
        read_patch(tmp_path / "net.pth")


def test_no_task_in_no_checkpoint(tmp_path):
    for name in ("none.pth", "none.safetensors"):
        with pytest.raises(FileNotFoundError, match="no such checkpoint"):
            read_task(tmp_path / name)
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_task(tmp_path / "bad.safetensors")
    torch.save([1], tmp_path / "list.pth")
    assert read_task(tmp_path / "list.pth") is None


def test_a_state_dict_that_does_not_say_it_is_warned_of(tmp_path):
    network = PAEDSR(mid_channels=8, num_blocks=2)
    with pytest.warns(UserWarning, match="published ones are assumed"):
        loaded = load_official(network.state_dict())
    assert_same(loaded, network)


@pytest.mark.parametrize(
    "arguments", ["{", "3", '{"num_blocks": 1000000000, "what": 1}', '{"attention": {"levels": 99}}']
)
def test_spoilt_arguments_are_refused(arguments):
    state = PAEDSR(mid_channels=8, num_blocks=2).state_dict()
    with pytest.raises(CheckpointError):
        load_official({"params": state, "panet_plugin": arguments})


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

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
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


def test_the_callers_tensors_are_not_shared(official):
    before = {key: value.clone() for key, value in official.items()}
    with torch.no_grad():
        for parameter in load_official(official).parameters():
            parameter.zero_()
    assert all(torch.equal(official[key], value) for key, value in before.items())


def for_255(state):
    """Return an original's weights as they would be, had it been trained with colors up to 255."""
    tail = "tail.1" if "tail.1.weight" in state else "tail.0"
    factors = {"head.0.weight": 1 / 255, f"{tail}.weight": 255, f"{tail}.bias": 255}
    factors |= {"sub_mean.bias": 255, "add_mean.bias": 255}
    return {key: value.double() * factors.get(key, 1) for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "rgb_range"),
    [("pa_edsr_x2", None), ("panet_color", 255), ("rnan_sr", None), ("rnan_car", 255)],
)
def test_a_network_for_another_range_becomes_one_for_the_unit_range(name, rgb_range):
    state = golden.state_dict(name)
    expected = load_official(state, rgb_range=1).state_dict()
    for key, value in load_official(for_255(state), rgb_range).state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("spoil", "rgb_range", "message"),
    [
        (lambda s: {**s, "add_mean.bias": s["add_mean.bias"] * 255}, None, r"\[0, 255\]"),
        (lambda s: {**s, "sub_mean.weight": s["sub_mean.weight"] * 2}, None, "unit weight"),
        (lambda s: {**s, "sub_mean.bias": torch.zeros(2)}, None, "unit weight"),
        (lambda s: without(s, "add_mean.bias"), None, "missing add_mean.bias"),
        (lambda s: s, 255, r"\[0, 1\], but rgb_range is 255"),
    ],
)
@pytest.mark.parametrize("name", ["pa_edsr_x2", "rnan_sr"])
def test_mean_shifts_that_do_not_fit_are_refused(name, spoil, rgb_range, message):
    with pytest.raises(CheckpointError, match=message):
        load_official(spoil(golden.state_dict(name)), rgb_range)


def test_our_networks_are_for_the_unit_range():
    with pytest.raises(CheckpointError, match="rgb_range is 255"):
        load_official(RNAN(mid_channels=4, num_groups=2).state_dict(), rgb_range=255)
    with pytest.raises(ValueError, match="rgb_range must be positive, got 0"):
        load_official({}, rgb_range=0)


def original_rnan(**arguments):
    """Return an RNAN, and its weights by the original's names."""
    network = RNAN(**arguments)
    groups = {"low": "body_nl_low.0.body", "high": "body_nl_high.0.body"}
    groups |= {f"groups.{i}": f"body.{i}.body" for i in range(len(network.groups))}
    modules = {"before": "0.RA_RB1.0", "mask.down": "0.RA_MB.0.MB_Down.0", "mask.up": "0.RA_MB.0.MB_Up.0"}
    modules |= {"mask.conv": "0.RA_MB.0.MB_1x1conv.0", "mask.after": "0.RA_MB.0.MB_RB3.0", "conv": "1"}
    modules |= {f"mask.middle.{i}": f"0.RA_MB.0.MB_RB2.{i}" for i in (0, 1)}
    modules |= {f"trunk.{i}": f"0.RA_TB.0.body.{i}" for i in (0, 1)}
    modules |= {f"after.{i}": f"0.RA_tail.{i}" for i in (0, 1)}
    attention = {"query": "theta", "key": "phi", "value": "g", "output": "W"}
    modules |= {f"mask.non_local.{ours}": f"0.RA_MB.0.MB_RB1.0.{theirs}" for ours, theirs in attention.items()}
    layers = {".conv1": ".body.0", ".conv2": ".body.2", "": ""}
    tail = "tail.0" if network.scale == 1 else "tail.1"
    names = {"head": "head.0", "tail": tail, "conv": f"body.{len(network.groups)}"}
    names |= {f"upsample.{i}": f"tail.0.{i}" for i in range(len(network.upsample))}
    for group, their_group in groups.items():
        modules["mask.before"] = f"0.RA_MB.0.MB_RB1.{int(group in ('low', 'high'))}"
        for module, their_module in modules.items():
            for layer, their_layer in layers.items():
                names[f"{group}.{module}{layer}"] = f"{their_group}.{their_module}{their_layer}"
    state = {}
    for key, value in network.state_dict().items():
        if key != "mean":
            module, kind = key.rsplit(".", 1)
            state[f"{names[module]}.{kind}"] = value
    if network.scale != 1:
        channels = network.mean.numel()
        for which, sign in (("sub", -1), ("add", 1)):
            state[f"{which}_mean.weight"] = torch.eye(channels).view(channels, channels, 1, 1)
            state[f"{which}_mean.bias"] = sign * network.mean.detach().flatten()
    return network, state


@settings(max_examples=15)
@given(
    scale=st.sampled_from([1, 2, 3, 4, 8]),
    in_channels=st.sampled_from([1, 3, 4]),
    mid_channels=st.integers(2, 6),
    num_groups=st.integers(2, 6),
)
def test_an_rnan_is_told_by_names_and_shapes(**arguments):
    network, original = original_rnan(**arguments)
    assert identify(original) is identify(network.state_dict()) is RNAN
    assert_same(load_official(original, rgb_range=1), network)
    loaded = load_official(network.state_dict())
    assert_same(loaded, network)
    assert loaded.arguments == network.arguments == arguments


@settings(max_examples=15)
@given(
    scale=st.sampled_from([None, 1, 2, 3, 4]),
    in_channels=st.sampled_from([1, 3, 4]),
    mid_channels=st.sampled_from([4, 6, 16]),
    num_blocks=st.integers(0, 12),
    reduction=st.sampled_from([1, 2, 4]),
)
def test_the_others_are_told_too(scale, reduction, **arguments):
    arguments["attention"] = {"reduction": reduction}
    network = PANet(**arguments) if scale is None else PAEDSR(scale, **arguments)
    assert identify(network.state_dict()) is type(network)
    with pytest.warns(UserWarning, match="published ones are assumed"):
        assert_same(load_official(network.state_dict()), network)


@pytest.mark.parametrize("prefix", ["", "module.", "generator.", "module.generator_ema."])
@pytest.mark.parametrize("name", golden.names("panet_") + golden.names("pa_edsr_") + golden.names("rnan_"))
def test_a_network_is_identified_by_names_alone(name, prefix):
    names = golden.description(name)["state_dict"]
    expected = {"pan": PANet, "pa_": PAEDSR, "rna": RNAN}[name[:3]]
    assert identify(f"{prefix}{key}" for key in names) is expected


@pytest.mark.parametrize(
    "names", [[], ["head.weight", "body.0.weight"], [3, None], ["body_nl_low.0.what"], ["body.conv_assembly.0.weight"]]
)
def test_strangers_are_not_identified(names):
    assert identify(names) is None


def test_the_color_range_of_an_rnan_without_mean_shifts():
    published, state = original_rnan()
    with torch.no_grad():
        network = load_official(state)
        torch.testing.assert_close(network.head.weight, published.head.weight * 255)
        torch.testing.assert_close(network.tail.bias, published.tail.bias / 255)
    small, state = original_rnan(mid_channels=4)
    with pytest.warns(UserWarning, match="pass rgb_range"):
        assert_same(load_official(state), small)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_rnan_file_says_it_all(suffix, tmp_path, recwarn):
    network = RNAN(2, 1, mid_channels=4, num_groups=3, mean=(0.3,))
    write_checkpoint(network, tmp_path / f"own{suffix}")
    assert_same(load_official(tmp_path / f"own{suffix}"), network)
    assert not recwarn


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda s: without(s, "body.2.bias"), "conv.bias"),
        (lambda s: without(s, "body_nl_high.0.body.0.RA_MB.0.MB_Up.0.bias"), "high.mask.up.bias"),
        (lambda s: {**s, "body.7.extra.weight": torch.zeros(1)}, r"original RNAN, also found body\.7\.extra"),
        (lambda s: {**s, "body.0.body.1.bias": torch.zeros(7)}, r"groups\.0\.conv\.bias"),
        (lambda s: {**s, "head.0.weight": torch.zeros(())}, "expected the weights of PANet, PA-EDSR or RNAN"),
        # Super-resolution without upscaling, which ours has not: it must not pass as a denoiser.
        (lambda s: {**s, **{k: v for k, v in golden.state_dict("rnan_sr").items() if "mean" in k}}, "mean"),
    ],
)
@pytest.mark.filterwarnings("ignore:an RNAN without mean shifts")
def test_what_is_no_rnan_says_what_was_found(spoil, found):
    with pytest.raises(CheckpointError, match=found):
        load_official(spoil(golden.state_dict("rnan_dn")))


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


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 truncated", bytes(1000), b"\x80\x02j\x01"])
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


def with_compressed_records(path):
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in records.items():
            file.writestr(name, content)


def test_small_files_do_not_become_large(official, tmp_path):
    path = tmp_path / "net.pth"
    torch.save({**official, "tail.0.bias": torch.zeros(1, dtype=torch.half).expand(10**9)}, path)
    with pytest.raises(CheckpointError, match=r"net\.pth: its tensors are more than 4 times as large as its storage"):
        read_state_dict(path)
    torch.save(official, path)
    with_compressed_records(path)
    for read in (read_state_dict, read_task):
        with pytest.raises(CheckpointError, match=r"net\.pth: its records are compressed"):
            read(path)


@pytest.mark.parametrize(
    "value", [torch.eye(3).to_sparse(), torch.zeros(3, device="meta"), torch.zeros(3, dtype=torch.complex64)]
)
def test_odd_tensors_are_refused(official, value):
    with pytest.raises(CheckpointError, match=r"'tail\.0\.bias' is not a plain tensor of real numbers"):
        load_official({**official, "tail.0.bias": value})


def test_a_directory_that_contradicts_itself(official, tmp_path):
    torch.save(official, tmp_path / "net.pth")
    content = bytearray((tmp_path / "net.pth").read_bytes())
    disks = content.rindex(b"PK\6\7") + 16
    content[disks : disks + 4] = b"\2\0\0\0"
    (tmp_path / "net.pth").write_bytes(content)
    for read in (read_state_dict, read_task):
        with pytest.raises(CheckpointError, match=r"net\.pth: not a checkpoint file, or damaged"):
            read(tmp_path / "net.pth")
    assert not is_whole(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["params-ema", "Params_EMA"])
def test_averaged_weights_by_almost_the_usual_name(official, name, tmp_path):
    state = {key: value + 1 for key, value in official.items()}
    torch.save({"params": official, name: state}, tmp_path / "net.pth")
    found = read_state_dict(tmp_path / "net.pth")
    for key, value in read_state_dict(state).items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["model_ema", "ema", "ema_params"])
def test_averaged_weights_by_an_unknown_name_are_not_passed_over(official, name, tmp_path):
    torch.save({"params": official, name: official}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=rf"net\.pth: '{name}' beside 'params': keep only one of them"):
        read_state_dict(tmp_path / "net.pth")
    # MMEngine's own, and what holds no weights.
    torch.save({"params": official, "ema_state_dict": official, "ema": 0.999}, tmp_path / "net.pth")
    assert read_state_dict(tmp_path / "net.pth")


def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match=r"script\.pt: a TorchScript program, expected a checkpoint of tensors$"):
        read_state_dict(tmp_path / "script.pt")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>Sign in</html>")
    with pytest.raises(CheckpointError, match=r"page\.pth: a web page, not a checkpoint file"):
        read_state_dict(tmp_path / "page.pth")
    torch.save(torch.nn.ReLU(), tmp_path / "module.pth")
    with pytest.raises(CheckpointError) as raised:
        read_state_dict(tmp_path / "module.pth")
    assert "weights_only" not in str(raised.value)


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="PyTorch before 2.5 has no such list")
def test_threads_load_at_once_and_leave_the_list_of_allowed_classes(official, tmp_path):
    from mmengine.logging.history_buffer import HistoryBuffer

    torch.serialization.add_safe_globals([HistoryBuffer])
    before = torch.serialization.get_safe_globals()
    torch.save({"state_dict": official, "message_hub": {"loss": HistoryBuffer([1.0], [1])}}, tmp_path / "net.pth")
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: len(read_state_dict(tmp_path / "net.pth")), range(40)))
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_the_tensors_of_safetensors_say_what_its_metadata_say(tmp_path):
    network = PAEDSR(mid_channels=8, num_blocks=2, res_scale=0.3, attention={"levels": 2, "res_scale": 0.2})
    network.trained_patch = 20
    write_checkpoint(network, tmp_path / "network.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "network.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_official(tensors)
    x = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(loaded(x), network.eval()(x))
    assert loaded.trained_patch == 20
    assert read_state_dict(tensors).keys() == network.state_dict().keys()
    for content in (b"[" * 100_000, b"{", b"1", b"\xff"):
        tensors["panet_plugin_about"] = torch.tensor(list(content), dtype=torch.uint8)
        with pytest.raises(CheckpointError, match="panet_plugin_about"):
            load_official(tensors)
