"""model-index.yml and the metafiles name existing files, and say what the code says."""

from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config

from panet_plugin.catalog import model_index
from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.evaluation.published import published_scores
from panet_plugin.frameworks.mmagic.archs import build_arch
from panet_plugin.tasks import TASKS, make_task
from panet_plugin.weights import list_bundled

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
    assert {model["Config"] for model in models.values()} == {f"configs/{p.name}" for p in ROOT.glob("configs/*.py")}
    named = [model["Metadata"]["BasicSR Config"] for model in models.values() if "BasicSR Config" in model["Metadata"]]
    assert set(named) == {f"configs/basicsr/{path.name}" for path in ROOT.glob("configs/basicsr/*.yml")}
    for content in metafiles.values():
        (collection,) = content["Collections"]
        assert (ROOT / collection["README"]).is_file()
        assert {model["In Collection"] for model in content["Models"]} == {collection["Name"]}


def test_numbers_are_the_codes(models, generators):
    counts = {}
    for name, generator in generators.items():
        if repr(generator) not in counts:
            with torch.device("meta"):
                counts[repr(generator)] = sum(p.numel() for p in build_arch(generator).parameters())
        assert models[name]["Metadata"]["Parameters"] == counts[repr(generator)], name
    # As published (paper, section 4).
    assert models["panet_dn10_div2k"]["Metadata"]["Parameters"] / 1e6 == pytest.approx(5.957, abs=5e-4)
    assert models["panet_x2_div2k"]["Metadata"]["Parameters"] / 1e6 == pytest.approx(40.81, abs=5e-3)


def test_results_are_the_published_ones(models, generators):
    tasks = [make_task(name, **setting) for name, task in TASKS.items() for setting in task.settings]
    for name, model in models.items():
        network = generators[name].get("arch", generators[name])
        (task,) = [
            task
            for task in tasks
            if f"{task.title} {task.level}".strip() == model["Metadata"]["Task"]
            and task.channels == network.get("in_channels", network.get("num_in_ch", 3))
        ]
        if "Weights" in model:
            continue  # measured
        for result in model.get("Results", []):
            score = published_scores(task, result["Dataset"])[model["In Collection"]]
            published = {"PSNR": score.psnr, "SSIM": score.ssim}
            assert result["Task"] == task.title
            assert result["Metrics"] == {key: value for key, value in published.items() if value is not None}, name
        assert not model.get("Results") or not {"lite", "compact"} & set(name.split("_"))
    assert models["panet_x4_div2k"]["Results"][0] == {
        **{"Task": "Super-resolution", "Dataset": "Set5", "Metrics": {"PSNR": 32.65, "SSIM": 0.9006}},
    }
    assert len(models["panet_demosaic_div2k"]["Results"]) == 4


def test_bundled_networks_are_listed_with_their_scores(models):
    listed = {model["Weights"]: model for model in models.values() if "Weights" in model}
    assert {ROOT / path for path in listed} == set(list_bundled())
    for model in listed.values():
        files = (ROOT / model_index.SCORES).glob(f"{model['Name']}*.csv")
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
                and (result["Task"] == model["Metadata"]["Task"].rpartition(" ")[0] or row[1] == level or not title)
            ]
            assert len(scores) == BENCHMARKS[result["Dataset"]].count
            psnr, ssim = (sum(column) / len(scores) for column in zip(*scores, strict=True))
            assert [result["Metrics"]["PSNR"], result["Metrics"]["SSIM"]] == [round(psnr, 2), round(ssim, 4)]
            # As a table of the page shows it.
            page = (ROOT / "docs/bundled.md").read_text()
            assert f"{psnr:.2f} | {ssim:.4f}" in page, (model["Name"], result["Dataset"])


def test_a_config_of_an_unknown_family_is_named(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/strange.py").write_text('model = dict(generator=dict(type="SRCNNNet"))\n')
    with pytest.raises(ValueError, match=r"strange\.py: expected a network of .*PANet, PAEDSR, .*, found SRCNNNet"):
        model_index.model_index(tmp_path)
