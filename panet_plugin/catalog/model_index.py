"""Generating OpenMMLab's metadata of the model zoo from the configs: model-index.yml and a metafile per family."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from mmengine.config import Config

from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.evaluation.published import published_scores
from panet_plugin.frameworks.bridges import BRIDGES
from panet_plugin.frameworks.task_overrides import follow_task, name_of_run
from panet_plugin.tasks import PUBLISHED_TRAINING, Task, make_task
from panet_plugin.weights.bundle import BUNDLE, list_bundled


class Family(NamedTuple):
    """Networks of one paper.

    Attributes:
        name: Name in the published tables.
        archs: Registered names.
        title: Title of the paper.
        arxiv: arXiv number of the paper.
    """

    name: str
    archs: tuple[str, ...]
    title: str
    arxiv: str

    @property
    def year(self) -> int:
        """URL of the paper."""
        return 2000 + int(self.arxiv[:2])


FAMILIES = (
    Family("PANet", ("PANet",), "Pyramid Attention Networks for Image Restoration", "2004.13824"),
    Family("PA-EDSR", ("PAEDSR",), "Pyramid Attention Networks for Image Restoration", "2004.13824"),
    Family(
        "EDSR", ("EDSRNet", "EDSR"), "Enhanced Deep Residual Networks for Single Image Super-Resolution", "1707.02921"
    ),
    Family(
        "RCAN", ("RCAN",), "Image Super-Resolution Using Very Deep Residual Channel Attention Networks", "1807.02758"
    ),
    Family("RNAN", ("RNAN",), "Residual Non-local Attention Networks for Image Restoration", "1903.10082"),
)

#: Folder of the bundled networks' scores, written by `tools/compare.py` to files whose names begin with the config's
#: name; and their name there, before a hyphen.
SCORES, SCORED_AS = "results/bundled", "PANet-"

_HEADER = "# Written by tools/model_index.py from the configs; do not edit.\n"


def model_index(root: Path) -> dict[str, str]:
    """Return the text of model-index.yml and of the metafiles, by their paths relative to the root.

    Every ``configs/FOLDER/*.py`` is a model, and every folder with a model has a metafile. The results of a model are
    the published ones for every level of its task if it is trained as published, or those measured with the bundled
    weights.

    Args:
        root: The folder that contains ``configs``.

    Raises:
        ValueError: If a config's network belongs to no known family.
    """
    families = {arch: family for family in FAMILIES for arch in family.archs}
    models: dict[str, list[tuple[Family, dict[str, Any]]]] = {}
    counts: dict[str, int] = {}
    build_arch, files = BRIDGES["mmagic"].load("archs").build_arch, list_bundled()
    for path in sorted((root / "configs").glob("[!_]*/*.py")):
        config = Config.fromfile(path)
        if "model" not in config:
            continue  # an ablation study
        generator = config.model.generator.to_dict()
        arch = generator["arch"]["type"] if generator["type"] == "BasicSRArch" else generator["type"]
        if arch not in families:
            raise ValueError(f"{path}: expected a network of {', '.join(families)}, found {arch}")
        family = families[arch]
        found = models.setdefault((path.parent / "metafile.yml").relative_to(root).as_posix(), [])
        bundled = _bundled(path, config, files)
        for name in {path.stem: None, **bundled}:
            weights = bundled.get(name)
            trained = files[weights] if weights else None
            network = {**generator}
            if trained and name != path.stem:
                follow_task(network, trained)
            key = repr(network)
            if key not in counts:
                with torch.device("meta"):
                    counts[key] = sum(parameter.numel() for parameter in build_arch(network).parameters())
            found.append((family, _model(root, path, config, family, name, counts[key], weights, trained)))
    texts = {metafile: _dump(_metafile(found)) for metafile, found in models.items()}
    return {"model-index.yml": _dump({"Import": list(texts)}), **texts}


def _bundled(path: Path, config: Config, files: Mapping[Path, Task]) -> dict[str, Path]:
    """Return the bundled files that a config trained, as it is or with overrides of its task, by the run's name."""
    found = {}
    own = make_task(**config.task).describe() if "task" in config else {}
    for file, task in files.items():
        if task.name == own.get("name"):
            changed = {key: value for key, value in task.describe().items() if value != own[key]}
            name = name_of_run(path.stem, changed)
            if file.stem == name.replace("_div2k", ""):
                found[name] = file
    return found


def _model(
    root: Path,
    path: Path,
    config: Config,
    family: Family,
    name: str,
    parameters: int,
    weights: Path | None,
    trained: Task | None,
) -> dict[str, Any]:
    # A run with overrides is described by what it trained for.
    changed = trained if name != path.stem else None
    task = changed or make_task(**config.val_dataloader.dataset.get("task", config.get("task", {})))
    metadata = {"Task": task.label, "Parameters": parameters}
    twin = root / "configs/basicsr" / f"{path.stem}.yml"
    if twin.is_file():
        metadata["BasicSR Config"] = twin.relative_to(root).as_posix()
    model = {
        "Name": name,
        "In Collection": family.name,
        "Config": path.relative_to(root).as_posix(),
        "Metadata": metadata,
    }
    results = []
    if config.train_cfg.max_iters == PUBLISHED_TRAINING["iterations"]:
        levels = [make_task(task.name, **setting) for setting in task.settings]
        for level in [level for level in levels if level.channels == task.channels]:
            for dataset in BENCHMARKS:
                score = published_scores(level, dataset).get(family.name)
                if score is not None:
                    metrics = {"PSNR": score.psnr, "SSIM": score.ssim}
                    metrics = {name: value for name, value in metrics.items() if value is not None}
                    results.append({"Task": level.label, "Dataset": dataset, "Metrics": metrics})
    if weights and trained:
        model["Weights"] = weights.relative_to(BUNDLE.parents[2]).as_posix()
        for file in sorted((root / SCORES).glob(f"{path.stem}*.json")):
            report = json.loads(file.read_bytes())
            scored = make_task(**report["task"])
            if not trained.covers(scored):
                continue  # of other weights that the config trained
            for mean in report["means"]:
                if mean["method"].startswith(SCORED_AS):
                    metrics = {"PSNR": round(mean["psnr"], 2), "SSIM": round(mean["ssim"], 4)}
                    results.append({"Task": scored.label, "Dataset": mean["dataset"], "Metrics": metrics})
    return {**model, "Results": results} if results else model


def _metafile(models: list[tuple[Family, dict[str, Any]]]) -> dict[str, Any]:
    collections = [
        {
            "Name": family.name,
            "Metadata": {"Architecture": list(family.archs)},
            "Paper": {"Title": family.title, "URL": f"https://arxiv.org/abs/{family.arxiv}"},
            "README": "README.md",
            "Year": family.year,
        }
        for family in FAMILIES
        if family in [other for other, _ in models]
    ]
    return {"Collections": collections, "Models": [model for _, model in models]}


def _dump(content: Mapping[str, Any]) -> str:
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
