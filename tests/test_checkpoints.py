"""Networks from checkpoints alone, with the layout that each program writes."""

from pathlib import Path

import golden_networks as golden
import pytest
import torch
import yaml
from mmengine.config import Config

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.checkpoints import load_any, load_patch, load_task, network_description
from panet_plugin.tasks import make_task
from panet_plugin.weights import PATCH, CheckpointError, load_official, write_checkpoint

ARGUMENTS = {"scale": 2, "mid_channels": 8, "num_blocks": 2, "res_scale": 0.5, "attention": {"levels": 2}}
GENERATOR = {"type": "PAEDSR", **ARGUMENTS}
PICTURE = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(1)
    return PAEDSR(**ARGUMENTS).eval()


def mmengine_text(generator, loader=None, **model):
    model = {"type": "BaseEditModel", "generator": generator, **model}
    return Config({"model": model, "lr": 1e-4, "train_dataloader": loader}).pretty_text


def save_mmengine(path, network, text):
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"meta": {"cfg": text, "iter": 4}, "state_dict": {**state, "step_counter": torch.tensor(4)}}, path)
    return path


def save_basicsr(folder, network, network_g, options="small.yml", **more):
    (folder / "experiments/small/models").mkdir(parents=True, exist_ok=True)
    header = "# GENERATE TIME: today\n# CMD:\n# tools/train.py\n\n"
    text = header + yaml.safe_dump({"name": "small", "network_g": network_g, **more})
    (folder / "experiments/small" / options).write_text(text)
    path = folder / "experiments/small/models/net_g_4.pth"
    torch.save({"params": network.state_dict()}, path)
    return path


def assert_loads(network, *arguments):
    loaded = load_any(*arguments)
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(PICTURE), network(PICTURE), rtol=0, atol=0)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_ours(network, tmp_path, suffix):
    write_checkpoint(network, tmp_path / f"ours.{suffix}")
    assert_loads(network, tmp_path / f"ours.{suffix}")


def test_the_originals(tmp_path):
    torch.save(golden.state_dict("pa_edsr_x2"), tmp_path / "original.pt")
    assert_loads(load_official(golden.state_dict("pa_edsr_x2")), tmp_path / "original.pt")


def test_mmengines(network, tmp_path):
    assert_loads(network, save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(GENERATOR)))


def test_averaged_weights_of_mmengine_come_first(network, tmp_path):
    state = {f"generator_ema.{key}": value for key, value in network.state_dict().items()}
    state |= {f"generator.{key}": value * 0 for key, value in network.state_dict().items()}
    torch.save({"meta": {"cfg": mmengine_text(GENERATOR)}, "state_dict": state}, tmp_path / "iter_4.pth")
    assert_loads(network, tmp_path / "iter_4.pth")


def test_basicsrs(network, tmp_path):
    path = save_basicsr(tmp_path, network, GENERATOR)
    save_basicsr(tmp_path, network, GENERATOR, "the_same_again.yml")
    assert_loads(network, path)


@pytest.mark.parametrize("framework", ["mmagic", "basicsr"])
def test_the_frameworks_own_networks(tmp_path, framework):
    if framework == "mmagic":
        from panet_plugin.frameworks.mmagic.archs import build_arch

        arguments = {"type": "EDSRNet", "in_channels": 3, "out_channels": 3, "mid_channels": 8, "num_blocks": 1}
        arguments |= {"upscale_factor": 2, "rgb_mean": [0.4, 0.4, 0.4]}
        network = build_arch(arguments)
        path = save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(arguments))
    else:
        from panet_plugin.frameworks.basicsr.archs import build_arch

        arguments = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "upscale": 2}
        network = build_arch(arguments)
        path = save_basicsr(tmp_path, network, arguments)
    assert_loads(network.eval(), path)


def test_networks_within_networks(tmp_path):
    from panet_plugin.frameworks.mmagic.archs import build_arch

    inner = {"type": "SRVGGNetCompact", "num_feat": 8, "num_conv": 1, "upscale": 2}
    network = build_arch({"type": "BasicSRArch", "arch": inner})
    text = mmengine_text({"type": "BasicSRArch", "arch": inner})
    assert_loads(network.eval(), save_mmengine(tmp_path / "iter_4.pth", network, text))


@pytest.mark.parametrize("suffix", ["py", "yml"])
def test_a_config_that_is_given_counts(network, tmp_path, suffix):
    path = save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text({**GENERATOR, "mid_channels": 16}))
    config = tmp_path / f"given.{suffix}"
    text = mmengine_text(GENERATOR) if suffix == "py" else yaml.safe_dump({"network_g": GENERATOR})
    config.write_text(text)
    assert_loads(network, path, config)
    assert network_description(path, config) != network_description(path)
    assert "res_scale" in network_description(path, config)


def test_arguments_that_no_name_or_shape_tells_are_not_guessed(network, tmp_path):
    torch.save({"params": network.state_dict()}, tmp_path / "bare.pth")
    with pytest.raises(CheckpointError, match=r"bare\.pth: it does not identify .*pass the config"):
        load_any(tmp_path / "bare.pth")


def test_other_networks_need_their_config(tmp_path):
    torch.save({"params": torch.nn.Conv2d(3, 3, 1).state_dict()}, tmp_path / "conv.pth")
    with pytest.raises(CheckpointError, match=r"conv\.pth: .*pass the config"):
        load_any(tmp_path / "conv.pth")


HOSTILE = [
    "model = dict(generator=dict(type='PAEDSR', scale=__import__('pathlib').Path('{file}').touch()))",
    "model = dict(generator=dict(type='PAEDSR', **{{'scale': open('{file}', 'w')}}))",
    "__import__('pathlib').Path('{file}').touch()\nmodel = dict(generator=dict(type='pathlib.Path.touch'))",
    "model = dict(generator=dict(type='os.mknod', path='{file}'))",
    "model = dict(generator=dict(type='BasicSRArch', arch=dict(type='os.mknod', path='{file}')))",
    "model = dict(generator=dict(type='MMagicArch', arch=[dict(type='subprocess.run', args=['touch', '{file}'])]))",
    "model = dict(generator=dict(type='PAEDSR', _scope_='antigravity'))",
    "class dict(object): pass\nmodel = dict(open('{file}', 'w'))",
    "model = " + "[" * 100_000,
    "model = 1",
    "other = 1",
    "model = dict(generator=dict(type=1))",
    "model = (",
    "model = '\\ud800'\0",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_config_is_refused_and_not_executed(network, tmp_path, text):
    marker = tmp_path / "executed"
    path = save_mmengine(tmp_path / "iter_4.pth", network, text.format(file=marker))
    with pytest.raises(CheckpointError, match=r"iter_4\.pth.*pass the config"):
        load_any(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network_g: {type: os.mknod, path: EXECUTED}", "no network or layer os.mknod is registered"),
        ("network_g: !!python/object/apply:os.mknod [EXECUTED]", "small.yml: not a valid option file"),
        ("network_g: 3", "small.yml: expected a network_g"),
        ("[", "small.yml: not a valid option file"),
    ],
)
def test_hostile_options_are_refused_and_not_executed(network, tmp_path, text, message):
    path = save_basicsr(tmp_path, network, GENERATOR)
    (tmp_path / "experiments/small/small.yml").write_text(text.replace("EXECUTED", str(tmp_path / "executed")))
    with pytest.raises(CheckpointError, match=message):
        load_any(path)
    assert not (tmp_path / "executed").exists()


def test_options_of_several_networks(network, tmp_path):
    save_basicsr(tmp_path, network, {**GENERATOR, "res_scale": 1}, "older.yml")
    with pytest.raises(CheckpointError, match=r"\(older.yml, small.yml\) describe several networks; pass the config"):
        load_any(save_basicsr(tmp_path, network, GENERATOR))


def test_images_that_are_shifted_before_the_network(network, tmp_path):
    text = mmengine_text(GENERATOR, data_preprocessor={"mean": [127.5], "std": [127.5]})
    with pytest.raises(CheckpointError, match=r"images in \[0, 1\].*mean \[127.5\]"):
        load_any(save_mmengine(tmp_path / "iter_4.pth", network, text))
    text = mmengine_text(GENERATOR, data_preprocessor={"mean": [0.0] * 3, "std": [255.0] * 3})
    assert_loads(network, save_mmengine(tmp_path / "iter_4.pth", network, text))


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        ({**GENERATOR, "mid_channels": 16}, "not the weights of such a network"),
        ({**GENERATOR, "unknown": 1}, "cannot build the network .*unknown"),
    ],
)
def test_weights_and_config_that_do_not_fit(network, tmp_path, generator, message):
    with pytest.raises(CheckpointError, match=rf"iter_4\.pth.*{message}"):
        load_any(save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(generator)))


def test_missing_and_bad_files(tmp_path):
    write_checkpoint(PANet(mid_channels=4, num_blocks=1), tmp_path / "net.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        load_any(tmp_path / "none.pth")
    for config in (tmp_path / "none.py", tmp_path / "net.pth", ""):
        with pytest.raises(FileNotFoundError, match=r"expected an existing config: \.py \(MMagic\), \.yml"):
            load_any(tmp_path / "net.pth", config)
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        load_any(tmp_path / "bad.pth")


DENOISING = {"name": "denoising", "sigma": 25}


@pytest.mark.parametrize("dataset", [{"task": DENOISING}, {"type": "RepeatDataset", "dataset": {"task": DENOISING}}])
def test_the_task_that_mmengine_trained(network, tmp_path, dataset):
    path = save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(GENERATOR, {"dataset": dataset}))
    assert load_task(path) == make_task("denoising", sigma=25)
    assert "denoising" not in network_description(path)


def test_the_task_that_basicsr_trained(network, tmp_path):
    assert load_task(save_basicsr(tmp_path, network, GENERATOR, task=DENOISING)) == make_task("denoising", sigma=25)


@pytest.mark.parametrize("config", sorted(Path("configs").glob("**/panet_lite_car10_div2k.*")), ids=str)
def test_the_task_of_a_config(network, tmp_path, config):
    path = save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(GENERATOR, {"dataset": {"task": DENOISING}}))
    assert load_task(path, config) == make_task("artifact_reduction", quality=10)


def test_the_task_in_a_file_of_ours(network, tmp_path):
    write_checkpoint(network, tmp_path / "ours.pth", make_task("super_resolution", scale=2))
    assert load_task(tmp_path / "ours.pth") == make_task("super_resolution", scale=2)
    torch.save(golden.state_dict("pa_edsr_x2"), tmp_path / "original.pt")
    assert load_task(tmp_path / "original.pt") is None


@pytest.mark.parametrize("loader", [None, [], {"dataset": {"type": "PairedLMDBDataset"}}, {"dataset": ["task"]}])
def test_no_task_is_said(network, tmp_path, loader):
    assert load_task(save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(GENERATOR, loader))) is None


@pytest.mark.parametrize("task", [[1], {"name": "magic"}, {"sigma": 3}])
def test_what_is_no_task(network, tmp_path, task):
    path = save_mmengine(tmp_path / "iter_4.pth", network, mmengine_text(GENERATOR, {"dataset": {"task": task}}))
    with pytest.raises(CheckpointError, match=r"iter_4\.pth.*task"):
        load_task(path)
    assert_loads(network, path)


def test_a_hostile_training_set_is_not_executed(network, tmp_path):
    text = mmengine_text(GENERATOR).replace(
        "train_dataloader = None", f"train_dataloader = dict(dataset=dict(task=open({str(tmp_path / 'new')!r}, 'w')))"
    )
    assert "open(" in text
    path = save_mmengine(tmp_path / "iter_4.pth", network, text)
    assert load_task(path) is None
    assert_loads(network, path)
    assert not (tmp_path / "new").exists()


def test_the_patches_of_the_training(network, tmp_path):
    unknown = save_mmengine(tmp_path / "iter_1.pth", network, mmengine_text(GENERATOR))
    assert load_patch(unknown) is None and load_any(unknown).trained_patch is None
    told = save_mmengine(tmp_path / "iter_2.pth", network, mmengine_text(GENERATOR, {"dataset": {"patch_size": 24}}))
    assert load_patch(told) == load_any(told).trained_patch == 24
    torch.save({**torch.load(told, weights_only=True), PATCH: 20}, told)
    assert load_patch(told) == load_any(told).trained_patch == 20
    for sizes in ({"gt_size": 64}, {"patch_size": 32}):
        path = save_basicsr(tmp_path / str(sizes), network, GENERATOR, scale=2, datasets={"train": sizes})
        assert load_patch(path) == load_any(path).trained_patch == 32
    torch.save(golden.state_dict("pa_edsr_x2"), tmp_path / "original.pt")
    assert load_patch(tmp_path / "original.pt") is None
    assert (
        load_any(tmp_path / "original.pt").trained_patch == load_official(tmp_path / "original.pt").trained_patch == 48
    )


@pytest.mark.parametrize(
    "datasets", [None, [1], {"train": [1]}, {"train": {"gt_size": "64"}}, {"train": {"gt_size": 0}}]
)
def test_no_patches_are_said(network, tmp_path, datasets):
    assert load_patch(save_basicsr(tmp_path, network, GENERATOR, datasets=datasets)) is None


def test_the_former_place_still_works_with_a_warning():
    with pytest.warns(FutureWarning, match=r"has moved to panet_plugin\.checkpoints"):
        from panet_plugin.frameworks.checkpoints import load_any as former
    assert former is load_any
