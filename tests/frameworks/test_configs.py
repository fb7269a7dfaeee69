"""Every config builds; with a tiny network it does one step of training and one image of validation."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_runs import BASICSR_CONFIGS, MMAGIC_CONFIGS, ROOT

from panet_plugin.errors import ConfigError, TaskError
from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.frameworks.configs import read_plain
from panet_plugin.tasks import PUBLISHED_TRAINING, make_task

# What makes the networks of the configs tiny; whatever else a config says stays. Others are small as they are.
TINY = {
    "PANet": {"mid_channels": 4, "num_blocks": 2, "attention": {"levels": 2}},
    "PAEDSR": {"mid_channels": 8, "num_blocks": 2, "attention": {"levels": 2}},
    "EDSRNet": {"mid_channels": 8, "num_blocks": 2},
    "EDSR": {"num_feat": 8, "num_block": 2},
    "RCAN": {"num_feat": 16, "num_group": 1, "num_block": 1},
    "RNAN": {"mid_channels": 4, "num_groups": 2},
}
SMALL = ("panet_small_dn_backbone_div2k", "panet_small_dn_div2k")
BASELINES = [f"{family}_{level}_div2k" for family in ("edsr", "rcan", "rnan") for level in ("x2", "dn50")]


def published(iterations):
    """Return whether a training is as long as the published ones."""
    return iterations == PUBLISHED_TRAINING["iterations"]


def trained(paths):
    """Return the configs that do a step of training here: RNAN takes long, one is enough."""
    return [path for path in paths if path.stem != "rnan_x2_div2k"]


def both(stem):
    """Return the configs of both frameworks."""
    (ours,) = [path for path in MMAGIC_CONFIGS if path.stem == stem]
    return ours, ROOT / f"configs/basicsr/{stem}.yml"


@pytest.fixture(autouse=True)
def roots(div2k, monkeypatch):
    monkeypatch.setenv("DIV2K_ROOT", str(div2k))
    monkeypatch.setenv("SAMPLE_ROOT", str(div2k))


def task_in_name(stem):
    """Return the task and its parameters that the name of a config promises."""
    for word in stem.split("_"):
        if word == "x2":
            return make_task("super_resolution", scale=2)
        if word in ("demosaic", "deblur"):
            return make_task({"demosaic": "demosaicing", "deblur": "deblurring"}[word])
        # Without a level: blind.
        for prefix, name, strength, blind in (
            ("dn", "denoising", "sigma", (0, 75)),
            ("car", "artifact_reduction", "quality", (5, 95)),
        ):
            if found := re.fullmatch(rf"{prefix}(\d*)", word):
                return make_task(name, **{strength: int(found[1]) if found[1] else blind})
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
        # In this process, and without the collection of garbage that comes with serializing the list of images.
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
    # The second of two stages starts from a checkpoint of the first, which has not been trained here.
    options["path"].update(experiments_root=str(tmp_path), visualization=str(tmp_path), pretrain_network_g=None)
    datasets = {
        phase: build_dataset({**dataset, "phase": phase, "scale": options["scale"]})
        for phase, dataset in options["datasets"].items()
    }
    batch = next(iter(DataLoader(datasets["train"], batch_size=2, shuffle=True)))
    patch = options["datasets"]["train"]["gt_size"] // task.scale
    assert batch["lq"].shape == (2, task.channels, patch, patch)
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
    ours = {path.stem for path in MMAGIC_CONFIGS} - {"panet_lite_x2_sample", "panet_deblur_div2k"}
    # BasicSR's trainer has only a part of the recipe of the small networks: one stands for all.
    assert {stem for stem in ours if "small" not in stem.split("_")} == theirs - set(SMALL)
    assert set(SMALL) <= ours


@pytest.mark.parametrize("stem", SMALL)
def test_what_basicsr_has_of_the_recipe_is_the_same(stem):
    ours, theirs = (framework_of(path) for path in both(stem))
    config, options = Config.fromfile(both(stem)[0]), theirs.load_options(both(stem)[1])
    assert ours is not theirs
    assert options["network_g"] == config.model.generator
    assert options["train"]["total_iter"] == config.train_cfg.max_iters
    assert options["val"]["val_freq"] == config.train_cfg.val_interval
    assert options["train"]["warmup_iter"] == config.param_scheduler[0].end
    assert options["train"]["scheduler"]["eta_min"] == config.param_scheduler[1].eta_min
    assert 1 - options["train"]["ema_decay"] == pytest.approx(config.custom_hooks[1].momentum)
    train, val = (options["datasets"][phase] for phase in ("train", "val"))
    assert make_task(**train["task"]) == make_task(**config.train_dataloader.dataset.task)
    assert make_task(**val["task"]) == make_task(**config.val_dataloader.dataset.task)
    assert train["gt_size"] == config.train_dataloader.dataset.patch_size


def test_there_are_few_files():
    assert len([path for path in ROOT.glob("configs/**/*.*") if path.name != "metafile.yml"]) <= 50


def test_the_config_that_keeps_its_place():
    kept, moved = (Config.fromfile(ROOT / f"configs/{name}.py") for name in ("panet_x2_div2k", "panet/panet_x2_div2k"))
    assert kept.to_dict() == moved.to_dict()


@pytest.mark.parametrize(
    ("stem", "changes", "task", "network"),
    [
        ("panet_x2_div2k", {"scale": 3}, make_task("super_resolution", scale=3), {"scale": 3}),
        ("edsr_x2_div2k", {"scale": 4}, make_task("super_resolution", scale=4), {"upscale_factor": 4, "upscale": 4}),
        ("rcan_x2_div2k", {"scale": 3}, make_task("super_resolution", scale=3), {"upscale": 3}),
        ("panet_dn50_div2k", {"sigma": 25}, make_task("denoising", sigma=25), {}),
        ("panet_dn50_div2k", {"sigma": [0, 55]}, make_task("denoising", sigma=(0, 55)), {}),
        (
            "panet_dn50_div2k",
            {"sigma": 30, "gray": True},
            make_task("denoising", sigma=30, gray=True),
            {"in_channels": 1},
        ),
        (
            "edsr_dn50_div2k",
            {"gray": True},
            make_task("denoising", gray=True),
            {"in_channels": 1, "out_channels": 1, "num_in_ch": 1, "num_out_ch": 1},
        ),
        ("panet_car10_div2k", {"quality": 40}, make_task("artifact_reduction", quality=40), {}),
        (
            "panet_car10_div2k",
            {"luma_only": False},
            make_task("artifact_reduction", luma_only=False),
            {"in_channels": 3},
        ),
        ("panet_demosaic_div2k", {"pattern": "RGGB"}, make_task("demosaicing", pattern="RGGB"), {}),
    ],
)
def test_all_follows_an_override_of_the_task(stem, changes, task, network):
    """The same key in both frameworks, with the same effect."""
    ours, theirs = both(stem)
    changes = {f"task.{name}": value for name, value in changes.items()}
    before, config = framework_of(ours)._load(ours, None, {}), framework_of(ours)._load(ours, None, changes)
    for phase in ("train", "val", "test"):
        dataset = config[f"{phase}_dataloader"].dataset
        assert dataset.scale == task.scale if "scale" in dataset else make_task(**dataset.task) == task
    options = framework_of(theirs).load_options(theirs, changes)
    assert make_task(**options["task"]) == task and options["scale"] == task.scale
    assert options["datasets"]["train"]["gt_size"] == 48 * task.scale
    for generator, first in (
        (config.model.generator, before.model.generator),
        (options["network_g"], framework_of(theirs).load_options(theirs)["network_g"]),
    ):
        inner, start = generator.get("arch", generator), first.get("arch", first)
        changed = {name: value for name, value in inner.items() if start.get(name) != value}
        assert changed == {name: value for name, value in network.items() if name in inner}
    assert Path(config.work_dir).name == options["name"] != stem


def test_a_level_of_its_own_for_validation_follows_an_override():
    ours, theirs = both(SMALL[0])
    changes = {"task.gray": True}
    config, options = framework_of(ours)._load(ours, None, changes), framework_of(theirs).load_options(theirs, changes)
    assert options["name"] == Path(config.work_dir).name == f"{SMALL[0]}_gray"
    for phase, task in (("train", {"sigma": (0, 75)}), ("val", {"sigma": 30})):
        expected = make_task("denoising", gray=True, **task)
        assert make_task(**config[f"{phase}_dataloader"].dataset.task) == expected
        assert make_task(**options["datasets"][phase]["task"]) == expected


def test_every_published_level_of_the_baselines_builds():
    for family in ("edsr", "rcan", "rnan", "panet"):
        ours, theirs = both(f"{family}_x2_div2k")
        from basicsr.archs import build_network
        from mmagic.registry import MODELS

        for scale in (3, 4):
            changes = {"task.scale": scale}
            for build, arch in (
                (MODELS.build, framework_of(ours)._load(ours, None, changes).model.generator),
                (build_network, framework_of(theirs).load_options(theirs, changes)["network_g"]),
            ):
                assert build(tiny(arch))(torch.rand(1, 3, 8, 6)).shape == (1, 3, 8 * scale, 6 * scale)


def test_a_task_that_is_not_there_cannot_be_changed(tmp_path):
    (tmp_path / "x.yml").write_text("network_g: {type: PANet}\ndatasets: {}")
    (tmp_path / "x.py").write_text("model = dict(generator=dict(type='PANet'))")
    with pytest.raises(ConfigError, match=r"x\.yml: no task to override with task\.sigma"):
        framework_of(tmp_path / "x.yml").load_options(tmp_path / "x.yml", {"task.sigma": 25})
    with pytest.raises(ConfigError, match=r"x\.py: no task to override with task\.sigma"):
        framework_of(tmp_path / "x.py")._load(tmp_path / "x.py", None, {"task.sigma": 25})
    path, _ = both("panet_dn50_div2k")
    with pytest.raises(TaskError, match="denoising has the parameters sigma, gray, got quality"):
        framework_of(path)._load(path, None, {"task.quality": 3})


def test_learning_rates_are_for_the_batches_that_configs_say():
    for path in (*MMAGIC_CONFIGS, *ROOT.glob("configs/ablation/_base_/*.py"), *BASICSR_CONFIGS):
        config = read_plain(path)
        train = config["datasets"]["train"] if path in BASICSR_CONFIGS else config["train_dataloader"]
        batch = train["batch_size_per_gpu" if path in BASICSR_CONFIGS else "batch_size"]
        assert config["auto_scale_lr"] == {"enable": False, "base_batch_size": batch}, path


@pytest.mark.parametrize("stem", ["panet_x2_div2k", "panet_dn50_div2k", "panet_demosaic_div2k", "panet_car10_div2k"])
def test_published_settings(stem):
    """Both frameworks' configs say what was published, and the same network."""
    path, theirs = both(stem)
    ours, theirs = Config.fromfile(path), framework_of(theirs).load_options(theirs)
    task = task_in_name(stem)
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


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_trained_as_panet(name):
    """The same data, schedule and validation."""
    family, word = name.removesuffix("_div2k").split("_")
    (ours, theirs), (panet, panet_yml), mse = both(name), both(f"panet_{word}_div2k"), family == "rnan"

    config, expected = Config.fromfile(ours).to_dict(), Config.fromfile(panet).to_dict()
    model = {**expected.pop("model"), "generator": config["model"]["generator"]}
    if mse:
        model["pixel_loss"] = {**model["pixel_loss"], "type": "MSELoss"}
    assert config == {**expected, "model": model}

    run = framework_of(theirs)
    options, expected = run.load_options(theirs), run.load_options(panet_yml)
    expected = {**expected, "name": name, "network_g": options["network_g"]}
    if mse:
        expected["train"] = {**expected["train"], "pixel_opt": {**expected["train"]["pixel_opt"], "type": "MSELoss"}}
    assert options == expected
