"""Tables of scores in Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import panet_plugin
from panet_plugin.evaluation.compare import Score
from panet_plugin.evaluation.published import published_scores
from panet_plugin.files import write_bytes
from panet_plugin.tasks import Task

#: Metrics and the number of digits to print.
METRICS = {"psnr": 2, "ssim": 4, "lpips": 4}


@dataclass(frozen=True)
class Mean:
    """The mean of one method over one set.

    Attributes:
        dataset: Name of the set.
        method: Name of the method.
        psnr: Decibels; None if it was not published.
        ssim: Up to 1; None if it was not published.
        lpips: None unless measured.
        published: Whether it was published, not measured.
    """

    dataset: str
    method: str
    psnr: float | None
    ssim: float | None
    lpips: float | None = None
    published: bool = False


def means(task: Task, scores: Sequence[Score]) -> list[Mean]:
    """Return the means of every method on every set, followed by the published ones for these sets."""
    found: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        found.setdefault((score.dataset, score.method), []).append(score)
    measured = []
    for (dataset, method), group in found.items():
        psnr, ssim, lpips = (_mean([getattr(score, metric) for score in group]) for metric in METRICS)
        measured.append(Mean(dataset, method, psnr, ssim, lpips))
    published = [
        Mean(dataset, method, score.psnr, score.ssim, published=True)
        for dataset in dict.fromkeys(score.dataset for score in scores)
        for method, score in published_scores(task, dataset).items()
    ]
    return measured + published


def markdown(
    task: Task, scores: Sequence[Score], seed: int, chop: int | None = None, window: int | str | None = None
) -> str:
    """Return a page with one row per method and one column per set and metric; arguments as :func:`write_reports`."""
    rows = means(task, scores)
    shown = [metric for metric in METRICS if any(getattr(score, metric) is not None for score in scores)]
    sets = {
        dataset: len({s.image for s in scores if s.dataset == dataset})
        for dataset in dict.fromkeys(s.dataset for s in scores)
    }
    protocol = task.protocol
    parts = [
        f"protocol `{protocol.name}` ({'luma' if protocol.channel == 'y' else 'all channels'}",
        f"border {protocol.total_border(task.scale)}",
        f"{protocol.ssim_window} SSIM window",
        f"results {protocol.rounding})",
        f"seed {seed}",
        *([f"networks on pieces of fewer than {chop} pixels, as in the original"] if chop else []),
        *(["attention in a window of the size of the training patches"] if window == "trained" else []),
        *([f"attention in a window of {window}x{window} pixels"] if isinstance(window, int) else []),
        f"panet_plugin {panet_plugin.__version__}",
    ]
    titles = [f"{dataset} ({count}) {metric.upper()}" for dataset, count in sets.items() for metric in shown]
    lines = [
        f"# {task.label}",
        "",
        ", ".join(parts) + ".",
        "",
        f"| method | {' | '.join(titles)} |",
        "|---|" + "---|" * len(titles),
    ]
    for published in (False, True):
        for method in dict.fromkeys(row.method for row in rows if row.published == published):
            by_set = {row.dataset: row for row in rows if row.published == published and row.method == method}
            cells = [
                _text(getattr(by_set.get(name), metric, None), METRICS[metric]) for name in sets for metric in shown
            ]
            lines.append(f"| {method}{' (published)' if published else ''} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def csv_table(task: Task, scores: Sequence[Score]) -> str:
    """Return one line per image and method, then the means with ``mean`` or ``published`` in the column ``image``."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "level", "dataset", "image", "method", *METRICS])
    rows: list[Score | Mean] = [*scores, *means(task, scores)]
    for row in rows:
        image = row.image if isinstance(row, Score) else "published" if row.published else "mean"
        numbers = ["" if (value := getattr(row, metric)) is None else value for metric in METRICS]
        writer.writerow([task.name, task.level, row.dataset, image, row.method, *numbers])
    return out.getvalue()


def json_report(
    task: Task, scores: Sequence[Score], seed: int, chop: int | None = None, window: int | str | None = None
) -> str:
    """Return all scores; an infinite PSNR, of equal images, becomes ``"inf"``."""
    content = {
        "task": task.describe(),
        "protocol": task.protocol.name,
        "seed": seed,
        "chop": chop,
        "window": window,
        "version": panet_plugin.__version__,
        "means": [_plain(asdict(row)) for row in means(task, scores)],
        "scores": [_plain(asdict(score)) for score in scores],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def write_reports(
    folder: Path,
    task: Task,
    scores: Sequence[Score],
    seed: int = 0,
    chop: int | None = None,
    window: int | str | None = None,
) -> None:
    """Write ``comparison.md``, ``.csv`` and ``.json``.

    Args:
        folder: Created if missing.
        task: The task.
        scores: See :func:`panet_plugin.evaluation.compare`.
        seed: Seed of the degradation.
        chop: Upper limit in pixels of the pieces that networks restored (exclusive); ``None`` for whole images.
        window: Window of the networks' attention, see :class:`~panet_plugin.inference.Restorer`.
    """
    contents = {
        "md": markdown(task, scores, seed, chop, window),
        "csv": csv_table(task, scores),
        "json": json_report(task, scores, seed, chop, window),
    }
    for suffix, content in contents.items():
        write_bytes(folder / f"comparison.{suffix}", content.encode())


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {key: "inf" if value == math.inf else value for key, value in record.items()}
