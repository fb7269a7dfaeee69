"""Published scores."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.tasks import Task, make_task

#: Benchmark sets by their names in lower case. The published tables call CBSD68 BSD68.
_SETS = {
    "bsd68": "CBSD68",
    **{alias.lower(): name for name, found in BENCHMARKS.items() for alias in (name, *found.aliases)},
}


class PublishedScore(NamedTuple):
    """A published mean over a set; None if it was not published."""

    psnr: float | None
    ssim: float | None


def published_scores(task: Task, dataset: str) -> dict[str, PublishedScore]:
    """Return the published scores for a task on a benchmark set (paper, tables 1 to 3 and 5).

    Args:
        task: The task; only published settings have scores.
        dataset: Name or alias of the set, case-insensitive.

    Returns:
        Scores by method, in the order of the tables; empty if there are none.
    """
    if not task.published or task not in [make_task(task.name, **setting) for setting in task.settings]:
        return {}
    rows = dict(_tables()[task.published])
    columns = rows.pop("columns")
    level = [task.level] if task.level else []
    if task.level in rows:  # here the level is not part of the column names
        rows, level = rows[task.level], []
    dataset = _set_of(dataset)
    scores: dict[str, dict[str, float]] = {}
    for method, values in rows.items():
        for column, value in zip(columns, values, strict=True):
            name, *words = column.split()
            metric = words.pop().lower() if words[-1] in ("PSNR", "SSIM") else "psnr"
            if _set_of(name) == dataset and words == level and value is not None:
                scores.setdefault(method, {})[metric] = value
    # The paper has no scores of bicubic interpolation; these are the commonly published ones.
    for name, levels in _tables()["bicubic"].items():
        if task.name == "super_resolution" and _set_of(name) == dataset:
            scores["bicubic"] = dict(zip(("psnr", "ssim"), levels[task.level], strict=True))
    return {method: PublishedScore(found.get("psnr"), found.get("ssim")) for method, found in scores.items()}


def _set_of(name: str) -> str:
    return _SETS.get(name.lower(), name)


@cache
def _tables() -> dict[str, Any]:
    return json.loads(files("panet_plugin.evaluation").joinpath("published.json").read_text(encoding="utf-8"))
