"""The command-line tools, as a user runs them."""

import importlib
import re
import runpy
import sys

import golden_networks as golden
import pytest
import torch
from evaluation_sets import make_set
from mmengine.config import Config

from panet_plugin.archs import PAEDSR, PANet
from panet_plugin.data import read_image
from panet_plugin.evaluation import ImageSet, Sample
from panet_plugin.inference import Restorer
from panet_plugin.tasks import make_task
from panet_plugin.weights import load_official, read_state_dict, read_task, write_checkpoint


def test_demo_at_a_tiny_size(run_tool, tmp_path):
    options = [
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
        "default_hooks.checkpoint.interval=2",
        "train_dataloader.batch_size=2",
        "train_dataloader.dataset.patch_size=12",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "model.generator.mid_channels=8",
        "model.generator.attention.levels=1",
    ]
    sample, work_dir = tmp_path / "sample", tmp_path / "demo"
    output = run_tool("demo.py", "--work-dir", work_dir, "--cfg-options", *options, SAMPLE_ROOT=str(sample))
    assert "$ python data_prep/sample.py" in output
    assert "$ python tools/train.py configs/panet/panet_lite_x2_sample.py" in output
    assert "dB over bicubic" in output
    pictures = sorted(path.name for path in (sample / "DIV2K_valid_HR").iterdir())
    assert sorted(path.name for path in (work_dir / "restored").iterdir()) == pictures
    for name in pictures:
        assert read_image(work_dir / "restored" / name).shape == read_image(sample / "DIV2K_valid_HR" / name).shape
    report = (work_dir / "report.md").read_text()
    # What is reported is what the trainer's own validation found.
    psnr, ssim = re.findall(r"PSNR: ([\d.]+) +SSIM: ([\d.]+)", output)[-1]
    mean = report[report.index("| mean |") :].splitlines()[0].split("|")[-2]
    assert [float(score) for score in mean.split("/")] == pytest.approx([float(psnr), float(ssim)], abs=0.006)
    assert all(name.removesuffix(".png") in report for name in pictures)
    assert "| mean |" in report
    assert min(read_image(work_dir / "comparison.png").shape[:2]) > 1000


def test_benchmark_restoring(run_tool, tmp_path):
    torch.manual_seed(0)
    network = PANet(mid_channels=4, num_blocks=1)
    task, weights = make_task("denoising", sigma=30), tmp_path / "panet.safetensors"
    write_checkpoint(network, weights, task)
    options = ["--task", "denoising", "--sigma", 30]
    folder = make_set(tmp_path / "Set")
    ways = ["--images", 1, "--windows", 6, "--tiles", 16]
    run_tool(
        "benchmark_restoring.py", *options, "--data", folder, "--weights", weights, *ways, "--out", tmp_path / "t.md"
    )
    rows = [line.strip("| ").split(" | ") for line in (tmp_path / "t.md").read_text().splitlines()[2:]]
    assert [row[0] for row in rows] == ["window 6", "tiles 16", "cut as published", "whole"]
    sample = Sample("Set", next(iter(ImageSet.open(folder).files.values())), task)
    for (_, psnr, seconds), how in ((rows[0], {"window": 6}), (rows[-1], {"window": None})):
        restored = Restorer(network, **how).restore(sample.degraded)
        assert float(psnr) == pytest.approx(task.protocol.psnr(restored, sample.reference), abs=0.011)
        assert float(seconds) > 0


@pytest.mark.parametrize(
    ("name", "suffix", "rgb_range"),
    [("panet_gray", "pth", None), ("pa_edsr_x4", "safetensors", None), ("rnan_car", "pth", 255)],
)
def test_convert_checkpoint(name, suffix, rgb_range, run_tool, tmp_path):
    official = golden.state_dict(name)
    torch.save(official, tmp_path / "official.pt")
    options = ["--rgb-range", rgb_range] if rgb_range else []
    output = run_tool(
        "convert_checkpoint.py", "--weights", tmp_path / "official.pt", "--out", tmp_path / f"ours.{suffix}", *options
    )
    network = load_official(official, rgb_range)
    assert type(network).__name__ in output
    converted = read_state_dict(tmp_path / f"ours.{suffix}")
    assert set(converted) == set(network.state_dict())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(converted[key], value, rtol=0, atol=0)


def test_convert_what_mmengine_trained(monkeypatch, tmp_path, capsys):
    network = PAEDSR(2, mid_channels=8, num_blocks=2, res_scale=0.5, attention={"levels": 2, "reduction": 8})
    text = Config({"model": {"generator": {"type": "PAEDSR", **network.arguments}}}).pretty_text
    state = {f"generator.{key}": value for key, value in network.state_dict().items()}
    torch.save({"meta": {"cfg": text}, "state_dict": state}, tmp_path / "iter_4.pth")

    def convert(*options):
        command = [
            "convert_checkpoint",
            "--weights",
            tmp_path / "iter_4.pth",
            "--out",
            tmp_path / "ours.safetensors",
            *options,
        ]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        runpy.run_path("tools/convert_checkpoint.py", run_name="__main__")
        loaded = load_official(tmp_path / "ours.safetensors")
        assert loaded.arguments == network.arguments
        for key, value in network.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)
        return read_task(tmp_path / "ours.safetensors")

    assert convert() == make_task("super_resolution", scale=2)
    assert "PAEDSR, 0.0" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="a network with scale 2 does not fit Denoising s25"):
        convert("--task", "denoising", "--sigma", "25")
    network = PANet(1, 4, 1, attention={"reduction": 2})
    write_checkpoint(network, tmp_path / "iter_4.pth")
    assert convert() is None
    assert "set --task" in capsys.readouterr().out
    denoising = make_task("denoising", sigma=25, gray=True)
    assert convert("--task", "denoising", "--sigma", "25", "--gray") == denoising


def test_a_converted_checkpoint_is_loaded_by_both_frameworks_own_loaders(run_tool, tmp_path):
    torch.save(golden.state_dict("pa_edsr_x2"), tmp_path / "official.pt")
    run_tool("convert_checkpoint.py", tmp_path / "official.pt", tmp_path / "ours.pth")  # the former command line
    expected = load_official(golden.state_dict("pa_edsr_x2")).state_dict()
    arguments = {"type": "PAEDSR", "scale": 2, "num_blocks": 4}

    importlib.import_module("panet_plugin.frameworks.basicsr")
    importlib.import_module("panet_plugin.frameworks.mmagic")
    from basicsr.models.sr_model import SRModel
    from mmagic.registry import MODELS
    from mmengine.runner import load_checkpoint

    theirs = SRModel({
        **{"num_gpu": 0, "dist": False, "is_train": False, "network_g": dict(arguments)},
        "path": {"pretrain_network_g": str(tmp_path / "ours.pth"), "strict_load_g": True},
    }).net_g  # fmt: skip
    model = MODELS.build(
        {
            "type": "BaseEditModel",
            "generator": arguments,
            "pixel_loss": {"type": "L1Loss"},
            "data_preprocessor": {"type": "DataPreprocessor"},
            "_scope_": "mmagic",
        }
    )
    load_checkpoint(model, str(tmp_path / "ours.pth"), strict=True)
    for network in (theirs, model.generator):
        for key, value in network.state_dict().items():
            torch.testing.assert_close(value, expected[key], rtol=0, atol=0)
