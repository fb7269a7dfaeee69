"""Real runs of both frameworks' own trainers, short."""

import errno
import re
import shutil
from pathlib import Path

import golden_networks as golden
import numpy as np
import pytest
import small_runs
import torch

from panet_plugin.archs import PAEDSR, pyramid_attention
from panet_plugin.checkpoints import load_any
from panet_plugin.data import read_image
from panet_plugin.frameworks.bridges import framework_of
from panet_plugin.inference import Restorer
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.weights import CheckpointError, read_patch, read_state_dict, write_checkpoint

FRAMEWORKS = ["mmagic", "basicsr"]


def train(run_tool, framework, work_dir, *arguments, iterations=small_runs.ITERATIONS):
    return run_tool(
        "train.py",
        small_runs.config(framework),
        "--work-dir",
        work_dir,
        *arguments,
        *small_runs.options(framework, iterations),
    )


def weights(framework, work_dir, iteration):
    if framework == "mmagic":
        return work_dir / f"iter_{iteration}.pth"
    return work_dir / f"experiments/panet_x2_div2k/models/net_g_{iteration}.pth"


def optimizer(framework, work_dir, iteration):
    """Return the optimizer's state dict in a checkpoint."""
    if framework == "mmagic":
        from panet_plugin.frameworks.compat import enable_mmagic

        enable_mmagic()  # allows what MMEngine pickles beside tensors
        content = torch.load(weights(framework, work_dir, iteration), weights_only=True)
        assert content["meta"]["iter"] == iteration
        return content["optimizer"]
    state = work_dir / f"experiments/panet_x2_div2k/training_states/{iteration}.state"
    content = torch.load(state, weights_only=True)
    assert content["iter"] == iteration
    return content["optimizers"][0]


def iterations_in(framework, output):
    pattern = r"Iter\(train\) \[ *(\d+)/" if framework == "mmagic" else r"iter: +(\d+), lr"
    return [int(found) for found in re.findall(pattern, output)]


def interrupt(framework, whole, work_dir):
    """Make ``work_dir`` what a run leaves that was killed between its checkpoints 2 and 4."""
    shutil.copytree(whole, work_dir, dirs_exist_ok=True)
    if framework == "mmagic":
        (work_dir / "last_checkpoint").write_text(str(work_dir / "iter_2.pth"))
        weights(framework, work_dir, 4).unlink()
    else:
        for file in (work_dir / "experiments").glob("*/*/*"):
            if re.search("4|latest", file.name):
                file.unlink()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_training_validation_checkpoint_and_resume(framework, run_tool, tmp_path):
    whole, tmp_path = tmp_path / "whole", tmp_path / "interrupted"
    output = train(run_tool, framework, whole)
    assert iterations_in(framework, output) == [1, 2, 3, 4]
    assert small_runs.validations(framework, output) == 3 - (framework == "mmagic")  # BasicSR also at the very end

    interrupt(framework, whole, tmp_path)
    resumed = train(run_tool, framework, tmp_path, "--resume")
    assert iterations_in(framework, resumed) == [3, 4]

    expected, found = (optimizer(framework, folder, 4) for folder in (whole, tmp_path))
    assert found["param_groups"] == expected["param_groups"]
    assert found["param_groups"][0]["lr"] < 1e-4
    assert {int(state["step"]) for state in found["state"].values()} == {4}
    # The first moment after 4 steps holds what was loaded: 0.9^2 of that after 2 steps, and two gradients.
    assert all(state["exp_avg"].abs().max() > 0 for state in found["state"].values() if state["exp_avg"].numel() > 1)
    state = read_state_dict(weights(framework, tmp_path, 4))
    assert state["head.weight"].shape[0] == 8
    network = load_any(weights(framework, tmp_path, 4))
    assert network.arguments["attention"]["levels"] == 2
    assert read_patch(weights(framework, tmp_path, 4)) == network.trained_patch == 12
    torch.testing.assert_close(network.state_dict()["head.weight"], state["head.weight"])
    assert all(torch.isfinite(value).all() for value in state.values())


def test_a_training_state_that_is_not_whole_is_passed_over(run_tool, tmp_path):
    train(run_tool, "basicsr", tmp_path)
    broken = tmp_path / "experiments/panet_x2_div2k/training_states/4.state"
    broken.write_bytes(broken.read_bytes()[:1000])
    output = train(run_tool, "basicsr", tmp_path, "--resume", iterations=5)
    assert "4.state" in output
    assert "is incomplete" in output
    assert iterations_in("basicsr", output) == [3, 4, 5]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_original_checkpoint_is_tested_as_it_is(framework, tmp_path, div2k, monkeypatch):
    monkeypatch.setenv("DIV2K_ROOT", str(div2k))
    torch.save(golden.state_dict("pa_edsr_x2"), tmp_path / "original.pt")
    config, options = Path(small_runs.config(framework)), small_runs.changes(framework)
    prefix = "model.generator" if framework == "mmagic" else "network_g"
    options = {key: value for key, value in options.items() if not key.startswith(prefix)}
    run = framework_of(config)
    shutil.copytree(div2k, tmp_path / "data")  # a process opens an LMDB once only
    monkeypatch.setenv("DIV2K_ROOT", str(tmp_path / "data"))
    options[f"{prefix}.num_blocks"] = 4
    run.test(config, tmp_path / "original.pt", work_dir=tmp_path, options=options)
    options[f"{prefix}.num_blocks"] = 5
    with pytest.raises(CheckpointError, match=r"original\.pt.*not the weights"):
        run.test(config, tmp_path / "original.pt", work_dir=tmp_path, options=options)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_validation_and_test_have_the_window_of_the_patches(framework, tmp_path, div2k, monkeypatch):
    seen = []
    attend = pyramid_attention.pyramid_attention
    monkeypatch.setattr(
        pyramid_attention,
        "pyramid_attention",
        lambda query, *args, **options: (
            seen.append((query.requires_grad, options["window"])) or attend(query, *args, **options)
        ),
    )
    shutil.copytree(div2k, tmp_path / "data")  # a process opens an LMDB once only
    monkeypatch.setenv("DIV2K_ROOT", str(tmp_path / "data"))
    config, options = Path(small_runs.config(framework)), small_runs.changes(framework)
    run = framework_of(config)
    run.train(config, work_dir=tmp_path, options=options)
    assert {window for training, window in seen if not training} == {12}
    checkpoint = weights(framework, tmp_path, 4)
    for window, expected in (("trained", 12), (6, 6), (None, None)):
        seen.clear()
        run.test(config, checkpoint, work_dir=tmp_path / str(window), options=options, window=window)
        assert set(seen) == {(False, expected)}


def test_a_basicsr_training_ends_where_a_checkpoint_cannot_be_written(tmp_path, div2k, monkeypatch):
    shutil.copytree(div2k, tmp_path / "data")
    monkeypatch.setenv("DIV2K_ROOT", str(tmp_path / "data"))
    from panet_plugin.frameworks.basicsr import models

    write = models.write_bytes

    def full(path, content):
        if "4" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(models, "write_bytes", full)
    config = Path(small_runs.config("basicsr"))
    with pytest.raises(OSError, match=r"No space left on device: .*net_g_4\.pth"):
        framework_of(config).train(config, work_dir=tmp_path, options=small_runs.changes("basicsr"))
    assert load_any(weights("basicsr", tmp_path, 2))


def test_both_frameworks_score_alike_and_as_published(tmp_path, div2k, monkeypatch):
    """The same weights on the same images: both validators, and our own metrics."""
    network = PAEDSR(mid_channels=8, num_blocks=2, attention={"levels": 2})
    network.trained_patch = 16
    write_checkpoint(network, tmp_path / "weights.pth")
    restorer, protocol = Restorer(network), PROTOCOLS["sr_y"]
    expected = []
    for path in sorted((div2k / "DIV2K_valid_HR").glob("*.png")):
        restored = restorer.restore(read_image(div2k / f"DIV2K_valid_LR_bicubic/X2/{path.stem}x2.png"))
        truth = read_image(path)
        expected.append((protocol.psnr(restored, truth, 2), protocol.ssim(restored, truth, 2)))
    psnr, ssim = np.mean(expected, axis=0)

    found = {}
    for framework in FRAMEWORKS:
        # A process opens an LMDB once only, and here it is two programs.
        shutil.copytree(div2k, tmp_path / f"{framework}_data")
        monkeypatch.setenv("DIV2K_ROOT", str(tmp_path / f"{framework}_data"))
        config = Path(small_runs.config(framework))
        run = framework_of(config)
        if framework == "basicsr":  # its pipeline logs the scores to four digits and returns nothing
            from basicsr.models.sr_model import SRModel

            keep = lambda model, *_: found.update(basicsr=dict(model.metric_results))  # noqa: E731
            monkeypatch.setattr(SRModel, "_log_validation_metric_values", keep)
        result = run.test(
            config, tmp_path / "weights.pth", work_dir=tmp_path / framework, options=small_runs.changes(framework)
        )
        found.setdefault(framework, result)
    assert found["mmagic"] == pytest.approx({"PSNR": psnr, "SSIM": ssim}, abs=1e-6)
    assert found["basicsr"] == pytest.approx({"psnr": psnr, "ssim": ssim}, abs=1e-6)
