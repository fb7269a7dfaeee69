"""model-index.yml and the metafiles name existing files, and say what the code says."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from small_runs import BASICSR_CONFIGS, MMAGIC_CONFIGS

from panet_plugin.catalog import model_index
from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.evaluation.published import published_scores
from panet_plugin.frameworks.mmagic.archs import build_arch
from panet_plugin.tasks import TASKS, make_task
from panet_plugin.weights import list_bundled, load_official

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metafiles():
    """Return the metafiles by path."""
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    return {path: yaml.safe_load((ROOT / path).read_text()) for path in index["Import"]}


@pytest.fixture(scope="module")
def models(metafiles):
    """Return the models of all metafiles by name."""
    return {model["Name"]: model for content in metafiles.values() for model in content["Models"]}


@pytest.fixture(scope="module")
def generators(models):
    """Return what the configs say of the models' networks."""
    return {name: Config.fromfile(ROOT / model["Config"]).model.generator for name, model in models.items()}


def test_the_files_are_what_the_configs_make_of_them():
    texts = model_index.model_index(ROOT)
    assert {path: (ROOT / path).read_text() for path in texts} == texts
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*/metafile.yml")} == set(texts) - {
        "model-index.yml"
    }


def test_every_config_is_a_model_and_every_file_exists(metafiles, models):
    assert {ROOT / model["Config"] for model in models.values()} == set(MMAGIC_CONFIGS)
    named = [model["Metadata"]["BasicSR Config"] for model in models.values() if "BasicSR Config" in model["Metadata"]]
    assert {ROOT / name for name in named} == set(BASICSR_CONFIGS)
    for content in metafiles.values():
        assert all((ROOT / collection["README"]).is_file() for collection in content["Collections"])
        names = [collection["Name"] for collection in content["Collections"]]
        assert {model["In Collection"] for model in content["Models"]} == set(names)


def test_numbers_are_the_codes(models, generators):
    counts = {}
    for name, generator in generators.items():
        if repr(generator) not in counts:
            with torch.device("meta"):
                counts[repr(generator)] = sum(p.numel() for p in build_arch(generator).parameters())
        if Path(models[name]["Config"]).stem == name:
            assert models[name]["Metadata"]["Parameters"] == counts[repr(generator)], name
    for model in models.values():
        if "Weights" in model:
            network = load_official(ROOT / model["Weights"])
            assert model["Metadata"]["Parameters"] == sum(p.numel() for p in network.parameters())
    # As published (paper, section 4).
    assert models["panet_dn50_div2k"]["Metadata"]["Parameters"] / 1e6 == pytest.approx(5.957, abs=5e-4)
    assert models["panet_x2_div2k"]["Metadata"]["Parameters"] / 1e6 == pytest.approx(40.81, abs=5e-3)


def test_results_are_the_published_ones_of_every_level(models):
    for name, task_name, prefix in (
        ("panet_x2_div2k", "super_resolution", "Super-resolution x"),
        ("panet_dn50_div2k", "denoising", "Denoising s"),
        ("panet_demosaic_div2k", "demosaicing", "Demosaicing"),
        ("panet_car10_div2k", "artifact_reduction", "JPEG artifact reduction q"),
        ("rnan_dn50_div2k", "denoising", "Denoising s"),
    ):
        model, found = models[name], []
        for setting in TASKS[task_name].settings:
            task = make_task(task_name, **setting)
            for dataset in BENCHMARKS:
                if score := published_scores(task, dataset).get(model["In Collection"]):
                    metrics = {"PSNR": score.psnr, "SSIM": score.ssim}
                    found.append((task.label, dataset, {key: value for key, value in metrics.items() if value}))
        assert found and all(label.startswith(prefix) for label, _, _ in found)
        assert [(result["Task"], result["Dataset"], result["Metrics"]) for result in model["Results"]] == found
    assert {"Task": "Super-resolution x4", "Dataset": "Set5", "Metrics": {"PSNR": 32.65, "SSIM": 0.9006}} in models[
        "panet_x2_div2k"
    ]["Results"]
    assert len(models["panet_demosaic_div2k"]["Results"]) == 4
    assert "Results" not in models["panet_lite_x2_div2k"]


def test_bundled_networks_are_listed_with_their_scores(models):
    listed = {model["Weights"]: model for model in models.values() if "Weights" in model}
    assert {ROOT / path for path in listed} == set(list_bundled())
    for model in listed.values():
        # One file, or one for each level of a range.
        pattern = rf"{model['Name']}(_[a-z]\d+)?\.csv"
        files = [file for file in (ROOT / model_index.SCORES).iterdir() if re.fullmatch(pattern, file.name)]
        rows = [line.split(",") for file in files for line in file.read_text().splitlines()]
        for result in model["Results"]:
            title, _, level = result["Task"].rpartition(" ")
            scores = [
                [float(row[5]), float(row[6])]
                for row in rows
                if row[2] == result["Dataset"]
                and row[4].startswith(model_index.SCORED_AS)
                and row[3] != "mean"
                # Where the levels of a range are scored, each says its own.
                and (row[1] == level or not title)
            ]
            assert len(scores) == BENCHMARKS[result["Dataset"]].count
            psnr, ssim = (sum(column) / len(scores) for column in zip(*scores, strict=True))
            assert [result["Metrics"]["PSNR"], result["Metrics"]["SSIM"]] == [round(psnr, 2), round(ssim, 4)]
            # As a table of the page shows it.
            page = (ROOT / "docs/bundled.md").read_text()
            assert f"{psnr:.2f} | {ssim:.4f}" in page, (model["Name"], result["Dataset"])


def test_a_config_of_an_unknown_family_is_named(tmp_path):
    (tmp_path / "configs/strange").mkdir(parents=True)
    (tmp_path / "configs/strange/strange.py").write_text('model = dict(generator=dict(type="SRCNNNet"))\n')
    with pytest.raises(ValueError, match=r"strange\.py: expected a network of .*PANet, PAEDSR, .*, found SRCNNNet"):
        model_index.model_index(tmp_path)
