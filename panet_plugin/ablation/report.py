"""Tables and a plot of a study: scores over the seeds, and costs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure

import panet_plugin
from panet_plugin.ablation.cost import ROUNDS, StepCost
from panet_plugin.evaluation import Score
from panet_plugin.files import write_bytes
from panet_plugin.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """Results of a study.

    Attributes:
        name: Name of the study.
        task: The task that is scored.
        budget: Description of the training of every run.
        crop: Side of the center crop that was scored, or None.
        threads: Number of threads.
        reference: The setting that the others are compared with.
        wanted: All runs, ``(setting, seed)``.
        scores: Scores of the finished runs, by ``(setting, seed)``.
        untouched: Scores of the degraded images.
        costs: Costs by setting; empty until they are measured.
    """

    name: str
    task: Task
    budget: str
    crop: int | None
    threads: int
    reference: str
    wanted: Sequence[tuple[str, int]]
    scores: Mapping[tuple[str, int], Sequence[Score]]
    untouched: Sequence[Score]
    costs: Mapping[str, StepCost]

    @property
    def settings(self) -> list[str]:
        """Names of the settings."""
        return list(dict.fromkeys(setting for setting, _ in self.wanted))

    @property
    def datasets(self) -> dict[str, int]:
        """Number of images by benchmark set."""
        names = [score.dataset for score in self.untouched]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    def psnr(self, setting: str, dataset: str) -> dict[int, float]:
        """Return the mean over the images by seed."""
        return {
            seed: _mean([score.psnr for score in scores if score.dataset == dataset])
            for (name, seed), scores in self.scores.items()
            if name == setting
        }

    def gain(self, setting: str, dataset: str) -> list[float]:
        """Return the gain over the reference, for every seed that both have."""
        own, reference = self.psnr(setting, dataset), self.psnr(self.reference, dataset)
        return [own[seed] - reference[seed] for seed in own if seed in reference]


def write_report(folder: Path, outcome: Outcome) -> str:
    """Write ``ablation.md``, ``.csv``, ``.json`` and ``.png``; return the Markdown."""
    page = markdown(outcome)
    image = io.BytesIO()
    plot(outcome).savefig(image, format="png", dpi=110)
    contents = {"md": page, "csv": csv_table(outcome), "json": json_report(outcome)}
    for suffix, content in contents.items():
        write_bytes(folder / f"ablation.{suffix}", content.encode())
    write_bytes(folder / "ablation.png", image.getvalue())
    return page


def markdown(outcome: Outcome) -> str:
    """Return a page with scores and costs of the settings."""
    task, reference = outcome.task, outcome.reference
    seeds = sorted({seed for _, seed in outcome.wanted})
    middle = f"the central {outcome.crop}x{outcome.crop} pixels of every image" if outcome.crop else "whole images"
    lines = [
        f"# {outcome.name}: {task.label}",
        "",
        f"Every setting: {outcome.budget}, seeds {', '.join(map(str, seeds))}; {len(outcome.scores)} of "
        f"{len(outcome.wanted)} runs finished. PSNR by protocol `{task.protocol.name}` on {middle}; mean over the "
        f"seeds, lowest and highest in brackets. Gains are over `{reference}` with the same seed. "
        f"panet_plugin {panet_plugin.__version__}.",
        "",
    ]
    head = [f"{title}" for name, count in outcome.datasets.items() for title in (f"{name} ({count}) PSNR", "gain")]
    lines += [f"| setting | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    cells = [
        cell
        for name in outcome.datasets
        for cell in (f"{_mean([s.psnr for s in outcome.untouched if s.dataset == name]):.2f}", "-")
    ]
    lines.append(f"| degraded | {' | '.join(cells)} |")
    for setting in outcome.settings:
        cells = []
        for name in outcome.datasets:
            gains = [] if setting == reference else outcome.gain(setting, name)
            cells += [_spread(list(outcome.psnr(setting, name).values()), ""), _spread(gains, "+")]
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    if outcome.costs:
        lines += [
            "",
            f"A training step without loading, threads: {outcome.threads}; medians of {ROUNDS} rounds of one step of "
            "every setting. Memory: the peak during a step above what a new process keeps between steps.",
            "",
            f"| setting | parameters | ms per step | times {reference} | peak memory, MB |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {cost.parameters:,} | {cost.seconds * 1000:.0f} | {cost.times:.2f} | {cost.megabytes:.0f} |"
            for name, cost in outcome.costs.items()
        ]
    return "\n".join([*lines, ""])


def csv_table(outcome: Outcome) -> str:
    """Return one line per setting, seed and set."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["setting", "seed", "dataset", "psnr", "ssim", "parameters", "seconds_per_step", "peak_megabytes"])
    for (setting, seed), scores in outcome.scores.items():
        cost = outcome.costs.get(setting)
        for name in outcome.datasets:
            own = [score for score in scores if score.dataset == name]
            means = [_mean([score.psnr for score in own]), _mean([score.ssim for score in own])]
            costs = [cost.parameters, cost.seconds, cost.megabytes] if cost else ["", "", ""]
            writer.writerow([setting, seed, name, *means, *costs])
    return out.getvalue()


def json_report(outcome: Outcome) -> str:
    """Return all scores, image by image, and costs."""
    content = {
        "name": outcome.name,
        "task": outcome.task.describe(),
        "protocol": outcome.task.protocol.name,
        "budget": outcome.budget,
        "crop": outcome.crop,
        "threads": outcome.threads,
        "reference": outcome.reference,
        "version": panet_plugin.__version__,
        "costs": {name: asdict(cost) for name, cost in outcome.costs.items()},
        "degraded": [asdict(score) for score in outcome.untouched],
        "scores": [
            {"setting": setting, "seed": seed, **{k: v for k, v in asdict(score).items() if k != "method"}}
            for (setting, seed), scores in outcome.scores.items()
            for score in scores
        ],
    }
    return json.dumps(content, indent=1) + "\n"


def plot(outcome: Outcome) -> Figure:
    """Plot PSNR over the time of a step, a dot for every seed and a bar for the mean; one panel per set."""
    figure = Figure(figsize=(4.6 * len(outcome.datasets), 3.8), layout="constrained")
    for axis, (name, count) in zip(
        figure.subplots(1, len(outcome.datasets), squeeze=False)[0], outcome.datasets.items(), strict=True
    ):
        for place, setting in enumerate(outcome.settings):
            values = list(outcome.psnr(setting, name).values())
            x = outcome.costs[setting].seconds * 1000 if outcome.costs else place
            (points,) = axis.plot([x] * len(values), values, "o", alpha=0.6, label=setting)
            if values:
                axis.plot([x], [_mean(values)], "_", color=points.get_color(), markersize=22)
        axis.set(
            title=f"{name} ({count})",
            xlabel="ms per training step" if outcome.costs else "setting",
            ylabel="PSNR, dB: a dot per seed, a bar for the mean",
        )
        axis.margins(x=0.15)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    return figure


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _spread(values: list[float], sign: str) -> str:
    if not values:
        return "-"
    return f"{_mean(values):{sign}.2f} ({min(values):{sign}.2f} to {max(values):{sign}.2f})"
