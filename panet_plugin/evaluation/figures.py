"""Figures that compare methods on single images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from panet_plugin.errors import EvaluationError, list_lines
from panet_plugin.evaluation.compare import Score
from panet_plugin.evaluation.image_sets import ImageSet, Sample, image_size
from panet_plugin.evaluation.methods import BASELINES, Method
from panet_plugin.tasks import Task
from panet_plugin.visualization import Box, Comparison, Panel, choose_box, comparison_figure, save_figure

#: PSNR assigned to equal images when differences of scores are compared.
_EQUAL = 100.0


@dataclass(frozen=True)
class FigureChoice:
    """The image that a figure shows, and the enlarged part of it.

    Attributes:
        dataset: Name of the set; None selects the image whose scores differ most.
        image: Name of the image.
        box: The part, in pixels of the reference; None selects the one where the methods differ most.
    """

    dataset: str | None = None
    image: str | None = None
    box: Box | None = None


def choose_figures(texts: Sequence[str], sets: Sequence[ImageSet], task: Task) -> list[FigureChoice]:
    """Parse the requested figures.

    Args:
        texts: ``auto``, ``NAME`` or ``NAME:X,Y,WIDTH,HEIGHT``, where NAME is the name of an image or ``SET/NAME``.
        sets: Sets of the images.
        task: The task.

    Raises:
        EvaluationError: If there is no such image, or several, or the box is not inside it.
    """
    return [FigureChoice() if text == "auto" else _choice(text, sets, task) for text in texts]


def _choice(text: str, sets: Sequence[ImageSet], task: Task) -> FigureChoice:
    name, *numbers = re.split(r":(?=\d+,\d+,\d+,\d+\Z)", text)
    found = [
        (images.name, stem, path)
        for images in sets
        for stem, path in images.files.items()
        if name in (stem, f"{images.name}/{stem}")
    ]
    if len(found) != 1:
        names = [f"{dataset}/{stem}" for dataset, stem, _ in found] or [
            f"{images.name}/{stem}" for images in sets for stem in images.files
        ]
        raise EvaluationError(
            f"figure {text!r}: expected auto, NAME or NAME:X,Y,WIDTH,HEIGHT with the name of one of"
            f"{list_lines(names, limit=100)}"
        )
    dataset, image, path = found[0]
    box = Box(*map(int, numbers[0].split(","))) if numbers else None
    height, width = (side - side % task.scale for side in image_size(path))
    if box and not (box.width and box.height and box.x + box.width <= width and box.y + box.height <= height):
        raise EvaluationError(f"figure {text!r}: the box is empty or not within the image, which has {width}x{height}")
    return FigureChoice(dataset, image, box)


def write_figures(
    folder: Path,
    choices: Sequence[FigureChoice],
    task: Task,
    sets: Sequence[ImageSet],
    methods: Sequence[Method],
    scores: Sequence[Score],
    seed: int = 0,
) -> list[Path]:
    """Restore the chosen images again and write a figure of each.

    Automatic choices compare the methods other than ``degraded`` and ``bicubic``, unless there are fewer than two.

    Args:
        folder: Created if missing.
        choices: See :func:`choose_figures`.
        task: As for :func:`panet_plugin.evaluation.compare`.
        sets: As for :func:`panet_plugin.evaluation.compare`.
        methods: As for :func:`panet_plugin.evaluation.compare`.
        scores: Result of :func:`panet_plugin.evaluation.compare`.
        seed: Seed of the degradation.

    Returns:
        The files: ``SET_NAME.png``, or ``SET_NAME_X_Y_WIDTH_HEIGHT.png`` for a given part.
    """
    restoring = [method.name for method in methods if method.name not in BASELINES]
    rivals = restoring if len(restoring) > 1 else [method.name for method in methods]
    if choices:
        for method in methods:
            method.check(sets, task)
    paths = []
    for choice in choices:
        dataset, image = choice.dataset, choice.image
        if dataset is None or image is None:
            dataset, image = _most_different(scores, rivals)
        files = next(images.files for images in sets if images.name == dataset)
        sample = Sample(dataset, files[image], task, seed)
        restored = {method.name: method.restore(sample) for method in methods}
        found = {score.method: score for score in scores if (score.dataset, score.image) == (dataset, image)}
        box = choice.box or choose_box(sample.reference, [restored[name] for name in rivals], task.scale)
        panels = [] if "degraded" in restored else [_input(sample)]
        panels += [Panel(name, image, found[name].psnr, found[name].ssim) for name, image in restored.items()]
        how = "selected manually" if choice.box else f"where {', '.join(rivals[:-1])} and {rivals[-1]} differ most"
        if len(rivals) == 1 and not choice.box:
            how = f"where the error of {rivals[0]} is largest"
        note = (
            f"{task.label}. PSNR / SSIM are of the whole image, by the "
            f"protocol {task.protocol.name}. Enlarged: {box.width}x{box.height} pixels at ({box.x}, {box.y}), {how}."
        )
        suffix = "".join(f"_{number}" for number in choice.box or ())
        paths.append(folder / f"{dataset}_{image}{suffix}.png")
        save_figure(
            paths[-1], comparison_figure([Comparison(f"{dataset}: {image}", sample.reference, box, panels)], note)
        )
    return paths


def _input(sample: Sample) -> Panel:
    task, image, reference = sample.task, sample.degraded, sample.reference
    if task.scale > 1:
        return Panel("input", image)
    return Panel("input", image, task.protocol.psnr(image, reference), task.protocol.ssim(image, reference))


def _most_different(scores: Sequence[Score], rivals: Sequence[str]) -> tuple[str, str]:
    """Return set and name of the image for which the PSNR of some methods differs most."""
    found: dict[tuple[str, str], list[float]] = {}
    for score in scores:
        if score.method in rivals:
            found.setdefault((score.dataset, score.image), []).append(min(score.psnr, _EQUAL))
    # For a single method, the image that it restores worst.
    return max(found, key=lambda key: np.ptp(found[key]) if len(rivals) > 1 else -found[key][0])
