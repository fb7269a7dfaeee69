"""The recipe of the small networks: two stages in bfloat16 whose averaged weights are saved."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_runs import MMAGIC_CONFIGS

from panet_plugin.checkpoints import load_any, load_task
from panet_plugin.frameworks.basicsr.run import load_options
from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.frameworks.mmagic import run
from panet_plugin.frameworks.mmagic.optim import BFloat16OptimWrapper
from panet_plugin.tasks import make_task

ROOT = Path(__file__).parents[2]
OPTIONS = [
    "--cfg-options",
    "model.generator.mid_channels=8",
    "model.generator.num_blocks=2",
    "train_dataloader.batch_size=2",
    "train_dataloader.num_workers=0",
    "train_dataloader.dataset.patch_size=12",
    "val_dataloader.num_workers=0",
    "test_dataloader.num_workers=0",
    "train_cfg.max_iters=4",
    "train_cfg.val_interval=4",
    "param_scheduler.0.end=2",
    "param_scheduler.1.begin=2",
    "default_hooks.logger.interval=1",
]


def test_two_stages(run_tool, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    output = run_tool("train.py", "configs/panet/panet_small_dn_backbone_div2k.py", "--work-dir", first, *OPTIONS)
    rates = [float(rate) for rate in re.findall(r"lr: (\S+)", output)]
    assert rates == pytest.approx([2e-6, 2e-3, 2e-3, 1e-3], rel=0.01)  # up in 2 iterations, and down in the other 2
    backbone = load_any(first / "iter_4.pth")
    assert backbone.arguments["attention"] is False
    assert load_task(first / "iter_4.pth") == make_task("denoising", sigma=(0, 75))

    # What is saved is the average; what goes on is kept beside it.
    from panet_plugin.frameworks.compat import enable_mmagic

    enable_mmagic()
    content = torch.load(first / "iter_4.pth", weights_only=True)
    name = "generator.head.weight"
    assert not torch.equal(content["state_dict"][name], content["ema_state_dict"][f"module.{name}"])

    output = run_tool(
        "train.py",
        "configs/panet/panet_small_dn_div2k.py",
        "--work-dir",
        second,
        "--resume",  # of this stage, of which there is nothing yet
        *OPTIONS,
        f"load_from={first}",
        "optim_wrapper.optimizer.lr=0",
        "param_scheduler.1.eta_min=0",
    )
    assert "Iter(train) [1/4]" in output
    whole = load_any(second / "iter_4.pth")
    x = torch.rand(1, 3, 16, 12)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), backbone(x))


def test_two_stages_of_basicsr(run_tool, tmp_path):
    options = [
        "--cfg-options",
        "network_g.mid_channels=8",
        "network_g.num_blocks=2",
        "datasets.train.batch_size_per_gpu=2",
        "datasets.train.num_worker_per_gpu=0",
        "datasets.train.patch_size=12",
        "train.total_iter=4",
        "train.warmup_iter=2",
        "train.ema_decay=0.5",
        "logger.print_freq=1",
    ]
    first, second = "panet_small_dn_backbone_div2k", "panet_small_dn_div2k"
    output = run_tool("train.py", f"configs/basicsr/{first}.yml", "--work-dir", tmp_path, *options)
    rates = [float(rate) for rate in re.findall(r"lr:\((\S+),\)", output)]
    assert rates[0] == pytest.approx(5e-4) and rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    models = tmp_path / "experiments" / first / "models"
    backbone = load_any(models / "net_g_latest.pth")
    assert backbone.arguments["attention"] is False
    content = torch.load(models / "net_g_latest.pth", weights_only=True)
    assert not torch.equal(content["params"]["head.weight"], content["params_ema"]["head.weight"])

    options += [f"path.pretrain_network_g={models / 'net_g_latest.pth'}", "train.optim_g.lr=0", "train.warmup_iter=-1"]
    options += ["train.scheduler.eta_min=0"]
    run_tool("train.py", f"configs/basicsr/{second}.yml", "--work-dir", tmp_path, *options)
    whole = load_any(tmp_path / "experiments" / second / "models/net_g_latest.pth")
    x = torch.rand(1, 3, 16, 12)
    with torch.no_grad():
        torch.testing.assert_close(whole(x), backbone(x))


def test_the_first_stage_must_be_there(tmp_path):
    config = ROOT / "configs/panet/panet_small_dn_div2k.py"
    with pytest.raises(FileNotFoundError, match="none: no such folder, expected by load_from"):
        framework_of(config).train(config, work_dir=tmp_path, options={"load_from": str(tmp_path / "none")})
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty: load_from expects .* it contains none"):
        framework_of(config).train(config, work_dir=tmp_path, options={"load_from": str(tmp_path / "empty")})


@pytest.mark.parametrize("supported", [True, False])
def test_the_forward_pass_is_in_bfloat16_where_that_is_fast_and_the_rest_in_float32(supported, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": supported}, raising=False)
    model = torch.nn.Conv2d(1, 1, 1)
    wrapper = BFloat16OptimWrapper(torch.optim.Adam(model.parameters()))
    with wrapper.optim_context(model):
        output = model(torch.rand(1, 1, 2, 2))
    assert output.dtype == (torch.bfloat16 if supported else torch.float32)
    before = model.weight.detach().clone()
    wrapper.update_params(output.float().sum())
    assert not torch.equal(model.weight, before)
    assert model(torch.rand(1, 1, 2, 2)).dtype == model.weight.dtype == torch.float32


@pytest.mark.parametrize("iterations", [100, 40_000])
def test_a_cosine_ends_with_the_training(iterations, div2k, monkeypatch):
    monkeypatch.setenv("DIV2K_ROOT", str(div2k))
    options = load_options(ROOT / "configs/basicsr/panet_lite_x2_div2k.yml", {"train.total_iter": iterations})
    assert options["train"]["scheduler"]["periods"] == [iterations]
    for path in MMAGIC_CONFIGS:
        schedulers = Config.fromfile(path).param_scheduler
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            assert "T_max" not in scheduler, path.name


@pytest.mark.parametrize(("iterations", "warm_up"), [(30_000, 200), (400, 200), (300, 30), (4, 1)])
def test_the_warm_up_of_a_short_training_is_a_tenth_of_it(iterations, warm_up):
    path = ROOT / "configs/panet/panet_small_dn_div2k.py"
    first, second = run._load(path, None, {"train_cfg.max_iters": iterations}).param_scheduler
    assert (first.end, second.begin) == (warm_up, warm_up)


def test_parameters_that_are_shared_may_have_settings(run_tool, tmp_path):
    output = run_tool(
        "train.py",
        "configs/panet/panet_small_dn_backbone_div2k.py",
        "--work-dir",
        tmp_path,
        *OPTIONS,
        "optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult=0.1",
    )
    assert "Saving checkpoint at 4 iterations" in output
