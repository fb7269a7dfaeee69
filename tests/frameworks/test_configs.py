"""Every config builds; with a tiny network it does one step of training and one image of validation."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.frameworks.configs import read_plain
from panet_plugin.tasks import PUBLISHED_TRAINING, TASKS, make_task

ROOT = Path(__file__).parents[2]
MMAGIC_CONFIGS = sorted(ROOT.glob("configs/*.py"))
BASICSR_CONFIGS = sorted(ROOT.glob("configs/basicsr/*.yml"))
SR_SCALES = {f"x{scale}": scale for scale in (2, 3, 4)}
DN_LEVELS = "dn10", "dn30", "dn50", "dn70"
# What makes the networks of the configs tiny; whatever else a config says stays. Others are small as they are.
TINY = {
    "PANet": {"mid_channels": 4, "num_blocks": 2, "attention": {"levels": 2}},
    "PAEDSR": {"mid_channels": 8, "num_blocks": 2, "attention": {"levels": 2}},
    "EDSRNet": {"mid_channels": 8, "num_blocks": 2},
    "EDSR": {"num_feat": 8, "num_block": 2},
    "RCAN": {"num_feat": 16, "num_group": 1, "num_block": 1},
    "RNAN": {"mid_channels": 4, "num_groups": 2},
    "SRVGGNetCompact": {"num_feat": 8, "num_conv": 2},
}
BASELINES = tuple(
    f"{family}_{level}_div2k" for family in ("edsr", "rcan", "rnan") for level in (*SR_SCALES, *DN_LEVELS)
)
#: The others differ from these in the level alone, which one test compares. RNAN takes long: one is enough.
TRAINED_BASELINES = "edsr_x2_div2k", "edsr_dn10_div2k", "rcan_x2_div2k", "rcan_dn10_div2k", "rnan_dn10_div2k"


def small(stem):
    """Return whether a config is of a network smaller than the published ones."""
    return not {"lite", "compact", "small"}.isdisjoint(stem.split("_"))


def published(iterations):
    """Return whether a training is as long as the published ones."""
    return iterations == PUBLISHED_TRAINING["iterations"]


def trained(paths):
    """Return the configs that do a step of training here."""
    return [path for path in paths if path.stem not in BASELINES or path.stem in TRAINED_BASELINES]


@pytest.fixture(autouse=True)
def roots(div2k, monkeypatch):
    monkeypatch.setenv("DIV2K_ROOT", str(div2k))
    monkeypatch.setenv("SAMPLE_ROOT", str(div2k))


def task_in_name(stem):
    """Return the task and its parameters that the name of a config promises."""
    words = stem.replace("gray_dn", "graydn").split("_")
    for word in words:
        if word in SR_SCALES:
            return make_task("super_resolution", scale=SR_SCALES[word])
        for prefix, make in {
            "graydn": lambda level: make_task("denoising", sigma=level, gray=True),
            "dn": lambda level: make_task("denoising", sigma=level),
            "car": lambda level: make_task("artifact_reduction", quality=level),
        }.items():
            if word.startswith(prefix) and word.removeprefix(prefix).isdigit():
                return make(int(word.removeprefix(prefix)))
        # Without a level: blind.
        if word in ("dn", "graydn"):
            return make_task("denoising", sigma=(0, 75), gray=word == "graydn")
        if word == "car":
            return make_task("artifact_reduction", quality=(5, 95))
        if word == "demosaic":
            return make_task("demosaicing")
    raise AssertionError(f"{stem} names no task")


def check_shapes(task, degraded, reference):
    """Images (..., C, H, W) have the channels and the scale of the task."""
    assert degraded.shape[-3] == reference.shape[-3] == task.channels
    assert tuple(reference.shape[-2:]) == tuple(side * task.scale for side in degraded.shape[-2:])


def tiny(network):
    if "arch" in network:
        return {**network, "arch": tiny(network["arch"])}
    changes = dict(TINY.get(network["type"], {}))
    if network.get("attention") is False:
        del changes["attention"]
    if "attention" in changes:
        changes["attention"] = {**network.get("attention", {}), **changes["attention"]}
    return {**network, **changes}


@pytest.mark.parametrize("path", trained(MMAGIC_CONFIGS), ids=lambda path: path.stem)
def test_mmagic(path):
    framework_of(path)
    from mmagic.registry import METRICS, MODELS
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    def load(dataloader, **changes):
        # In this process, and without the collection of garbage that comes with serialising the list of images.
        dataset = {**dataloader["dataset"], "serialize_data": False}
        changes = {"num_workers": 0, "persistent_workers": False, "dataset": dataset, **changes}
        return next(iter(Runner.build_dataloader({**dataloader, **changes})))

    task = task_in_name(path.stem)
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    if published(config.train_cfg.max_iters):
        with torch.device("meta"):
            assert sum(parameter.numel() for parameter in MODELS.build(config.model.generator).parameters()) > 5e6

    config.model.generator = tiny(config.model.generator)
    model = MODELS.build(config.model)
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    patch = config.train_dataloader.dataset.patch_size
    batch = load(config.train_dataloader, batch_size=2)
    assert [tuple(image.shape) for image in batch["inputs"]] == [(task.channels, patch, patch)] * 2
    for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
        check_shapes(task, image, sample.gt_img)
    before = [parameter.clone() for parameter in model.generator.parameters() if parameter.requires_grad]
    assert torch.isfinite(model.train_step(batch, optim_wrapper)["loss"])
    after = [parameter for parameter in model.generator.parameters() if parameter.requires_grad]
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))

    assert config.test_dataloader == config.val_dataloader
    assert config.test_evaluator == config.val_evaluator
    batch = load(config.val_dataloader)
    check_shapes(task, batch["inputs"][0], batch["data_samples"][0].gt_img)
    samples = [sample.to_dict() for sample in model.val_step(batch)]
    for metric in map(METRICS.build, config.val_evaluator.metrics):
        metric.process(batch, samples)
        # The very score that the task's protocol gives to what the network returned, which MMagic holds as BGR.
        output, truth = (
            image.reshape(1, *image.shape[-3:]).double().clamp(0, 255).round().byte().flip(1)
            for image in (samples[0]["output"]["pred_img"], samples[0]["gt_img"])
        )
        score = getattr(task.protocol, f"batched_{metric.metric.lower()}")(output, truth, task.scale)
        assert metric.results[0][metric.metric] == pytest.approx(score.item(), abs=1e-9)


@pytest.mark.parametrize("path", trained(BASICSR_CONFIGS), ids=lambda path: path.stem)
def test_basicsr(path, tmp_path):
    run = framework_of(path)
    from basicsr.archs import build_network
    from basicsr.data import build_dataset
    from basicsr.models import build_model
    from torch.utils.data import DataLoader

    task = task_in_name(path.stem)
    options = run.load_options(path)
    assert options["name"] == path.stem
    if published(options["train"]["total_iter"]):
        with torch.device("meta"):
            assert sum(parameter.numel() for parameter in build_network(options["network_g"]).parameters()) > 5e6

    options["network_g"] = tiny(options["network_g"])
    options.update(num_gpu=0, dist=False, is_train=True, rank=0, world_size=1)
    options["path"].update(experiments_root=str(tmp_path), visualization=str(tmp_path))
    datasets = {
        phase: build_dataset({**dataset, "phase": phase, "scale": options["scale"]})
        for phase, dataset in options["datasets"].items()
    }
    batch = next(iter(DataLoader(datasets["train"], batch_size=2, shuffle=True)))
    assert batch["lq"].shape == (2, task.channels, 48, 48)
    check_shapes(task, batch["lq"], batch["gt"])
    model = build_model(options)
    model.feed_data(batch)
    before = [parameter.clone() for parameter in model.net_g.parameters()]
    model.optimize_parameters(1)
    assert any(not torch.equal(*pair) for pair in zip(before, model.net_g.parameters(), strict=True))

    one = torch.utils.data.Subset(datasets["val"], [0])
    check_shapes(task, one[0]["lq"], one[0]["gt"])
    one.opt = {"name": "one"}
    model.validation(DataLoader(one), 1, None, save_img=False)
    model.feed_data(next(iter(DataLoader(one))))
    model.test()
    restored, truth = (image.clamp(0, 1).mul(255).round().byte() for image in (model.output.detach(), model.gt))
    for name, score in model.metric_results.items():
        expected = getattr(task.protocol, f"batched_{name}")(restored, truth, task.scale)
        assert score == pytest.approx(expected.item(), abs=1e-9)
    assert set(model.metric_results) == {"psnr", "ssim"}


def test_both_frameworks_have_the_same_configs():
    theirs = {path.stem for path in BASICSR_CONFIGS}
    ours = {path.stem for path in MMAGIC_CONFIGS} - {"panet_lite_x2_sample"}
    assert {stem for stem in ours if {"compact", "small"}.isdisjoint(stem.split("_"))} == theirs
    for name, task in TASKS.items():
        for setting in task.settings:
            wanted = make_task(name, **setting)
            for lite in (False, True):
                assert [
                    stem
                    for stem in theirs
                    if stem.startswith("panet_") and ("lite" in stem) == lite and task_in_name(stem) == wanted
                ], (wanted, lite)


def test_learning_rates_are_for_the_batches_that_configs_say():
    for path in (*MMAGIC_CONFIGS, *ROOT.glob("configs/ablation/_base_/*.py"), *BASICSR_CONFIGS):
        config = read_plain(path)
        train = config["datasets"]["train"] if path in BASICSR_CONFIGS else config["train_dataloader"]
        batch = train["batch_size_per_gpu" if path in BASICSR_CONFIGS else "batch_size"]
        assert config["auto_scale_lr"] == {"enable": False, "base_batch_size": batch}, path


@pytest.mark.parametrize(
    "path",
    [path for path in MMAGIC_CONFIGS if path.stem.startswith("panet_") and not small(path.stem)],
    ids=lambda path: path.stem,
)
def test_published_settings(path):
    """Both frameworks' configs say what was published, and the same network."""
    run = framework_of(ROOT / f"configs/basicsr/{path.stem}.yml")
    theirs = run.load_options(ROOT / f"configs/basicsr/{path.stem}.yml")
    ours = Config.fromfile(path)
    task = task_in_name(path.stem)
    assert dict(ours.model.generator) == dict(theirs["network_g"])
    # What the config leaves out is the default, which the task may spell out.
    assert {"in_channels": 3, **ours.model.generator} == {"in_channels": 3, **task.arch}
    expected = PUBLISHED_TRAINING
    assert ours.train_cfg.max_iters == theirs["train"]["total_iter"] == expected["iterations"]
    for schedule in (ours.param_scheduler, theirs["train"]["scheduler"]):
        assert schedule["type"] == "MultiStepLR"
        assert tuple(schedule["milestones"]) == expected["milestones"]
        assert schedule["gamma"] == 0.5
    for optimizer in (ours.optim_wrapper.optimizer, theirs["train"]["optim_g"]):
        assert {**optimizer, "betas": tuple(optimizer["betas"])} == expected["optimizer"]
    train = theirs["datasets"]["train"]
    assert ours.train_dataloader.batch_size == train["batch_size_per_gpu"] == expected["batch_size"]
    assert ours.train_dataloader.dataset.patch_size == train["gt_size"] / task.scale == expected["patch_size"]
    assert ours.model.pixel_loss.type == theirs["train"]["pixel_opt"]["type"] == expected["loss"]


def differences(one, other, path=""):
    """Return the values of ``one`` that are not those of ``other``, by dotted name."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert set(one) == set(other), path
        return {
            key: value for name in one for key, value in differences(one[name], other[name], f"{path}.{name}").items()
        }
    return {} if one == other else {path.lstrip("."): one}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_trained_as_panet(name):
    """The same data, schedule and validation; what differs from the first level is the level alone."""
    task = task_in_name(name)
    level = task.scale if task.scale > 1 else task.sigma
    family, word = name.removesuffix("_div2k").split("_")
    first, panet = f"{family}_{'x2' if task.scale > 1 else 'dn10'}_div2k", f"panet_{word}_div2k"
    mse = family == "rnan"

    configs = {stem: Config.fromfile(ROOT / f"configs/{stem}.py").to_dict() for stem in (name, first, panet)}
    expected = dict(configs[panet])
    model = {**expected.pop("model"), "generator": configs[name]["model"]["generator"]}
    if mse:
        model["pixel_loss"] = {**model["pixel_loss"], "type": "MSELoss"}
    assert configs[name] == {**expected, "model": model}
    changed = differences(configs[name], configs[first])
    assert set(changed.values()) <= {level}
    assert all(key.split(".")[-1] in ("scale", "sigma", "upscale", "upscale_factor") for key in changed)

    run = framework_of(ROOT / f"configs/basicsr/{name}.yml")
    options = {stem: run.load_options(ROOT / f"configs/basicsr/{stem}.yml") for stem in (name, first, panet)}
    expected = {**options[panet], "name": name, "network_g": options[name]["network_g"]}
    if mse:
        expected["train"] = {**expected["train"], "pixel_opt": {**expected["train"]["pixel_opt"], "type": "MSELoss"}}
    assert options[name] == expected
    network = differences(options[name]["network_g"], options[first]["network_g"])
    assert set(network.values()) <= {level}

    if task.scale > 1 and name not in TRAINED_BASELINES:
        framework_of(ROOT / f"configs/{name}.py")
        from basicsr.archs import build_network
        from mmagic.registry import MODELS

        for build, arch in (
            (MODELS.build, configs[name]["model"]["generator"]),
            (build_network, options[name]["network_g"]),
        ):
            assert build(tiny(arch))(torch.rand(1, 3, 8, 6)).shape == (1, 3, 8 * task.scale, 6 * task.scale)
