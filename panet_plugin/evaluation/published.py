"""Published scores, and where to find those of one benchmark set."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from panet_plugin.tasks import Task, make_task

#: Other names of benchmark sets, in lower case, and those that the published tables use.
ALIASES = {
    **dict.fromkeys(("cbsd68", "bsds68"), "bsd68"),
    **dict.fromkeys(("bsd100", "bsds100"), "b100"),
    **dict.fromkeys(("mcmaster", "mcm", "mcm18"), "mcmaster18"),
    "kodak": "kodak24",
}


class PublishedScore(NamedTuple):
    """A published mean over a set; None where it was not published."""

    psnr: float | None
    ssim: float | None


def published_scores(task: Task, dataset: str) -> dict[str, PublishedScore]:
    """Return what was published for a task on a benchmark set (paper, tables 1 to 3 and 5).

    Args:
        task: Only a published setting has scores.
        dataset: Name of the set in any case, or another usual one, such as CBSD68 for BSD68.

    Returns:
        Scores by method, in the order of the tables; empty if there are none.
    """
    if not task.published or task not in [make_task(task.name, **setting) for setting in task.settings]:
        return {}
    rows = dict(_tables()[task.published])
    columns = rows.pop("columns")
    level = [task.level] if task.level else []
    if task.level in rows:  # here the level is no part of the columns' names
        rows, level = rows[task.level], []
    dataset = ALIASES.get(dataset.lower(), dataset.lower())
    scores: dict[str, dict[str, float]] = {}
    for method, values in rows.items():
        for column, value in zip(columns, values, strict=True):
            name, *words = column.split()
            metric = words.pop().lower() if words[-1] in ("PSNR", "SSIM") else "psnr"
            if name.lower() == dataset and words == level and value is not None:
                scores.setdefault(method, {})[metric] = value
    # Bicubic interpolation is in no table of the paper; its scores are those commonly published.
    for name, levels in _tables()["bicubic"].items():
        if task.name == "super_resolution" and name.lower() == dataset:
            scores["bicubic"] = dict(zip(("psnr", "ssim"), levels[task.level], strict=True))
    return {method: PublishedScore(found.get("psnr"), found.get("ssim")) for method, found in scores.items()}


@cache
def _tables() -> dict[str, Any]:
    return json.loads(files("panet_plugin.evaluation").joinpath("published.json").read_text(encoding="utf-8"))
