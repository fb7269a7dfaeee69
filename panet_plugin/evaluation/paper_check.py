"""Reproducing the published figures that need no trained network."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panet_plugin.data import read_image
from panet_plugin.data.benchmarks import input_path
from panet_plugin.data.datasets import BENCHMARKS
from panet_plugin.data.image_reader import list_images
from panet_plugin.degradations import add_gaussian_noise
from panet_plugin.errors import EvaluationError, list_lines
from panet_plugin.evaluation.compare import compare
from panet_plugin.evaluation.image_sets import ImageSet, Sample
from panet_plugin.evaluation.methods import Method, bicubic, degraded
from panet_plugin.evaluation.published import published_scores
from panet_plugin.metrics import quantize
from panet_plugin.pixels import PEAK
from panet_plugin.tasks import Denoising, SuperResolution, Task, image_rng, make_task

#: Number of images by folder.
NEEDED = {f"{name}/HR": BENCHMARKS[name].count for name in ("classic5", "McMaster18", "Set5")}
NEEDED |= {f"Set5/LR_bicubic/X{scale}": BENCHMARKS["Set5"].count for scale in (2, 3, 4)}
NEEDED_BM3D = {"CBSD68/HR": BENCHMARKS["CBSD68"].count}

#: Task with parameters, set, our method and its published name, and the allowed differences in dB and SSIM; None: the
#: printed digits must be equal. The scores of bicubic interpolation differ this much between publications.
ROWS = (
    *(("artifact_reduction", {"quality": q}, "classic5", degraded, "JPEG", None) for q in (10, 20, 30, 40)),
    ("demosaicing", {}, "McMaster18", degraded, "Mosaiced", None),
    *(("super_resolution", {"scale": s}, "Set5", bicubic, "bicubic", (0.03, 0.0012)) for s in (2, 3, 4)),
)

_VERDICT = {True: "yes", False: "**no**"}

#: Allowed difference in dB between the published CBM3D and the package bm3d, a later version of the method.
BM3D_TOLERANCE = 0.15


@dataclass(frozen=True)
class Check:
    """One published figure, measured again.

    Attributes:
        what: Task, level, set, method and metric.
        published: The published figure.
        measured: The measured figure, with as many digits.
        allowed: The allowed difference.
        passed: Whether the difference is allowed.
    """

    what: str
    published: str
    measured: str
    allowed: str
    passed: bool


def missing_benchmarks(root: Path, bm3d: bool = False) -> str:
    """Return a message about missing images under ``root`` and how to prepare them; empty if all exist."""
    wrong = []
    for name, count in (NEEDED_BM3D if bm3d else NEEDED).items():
        folder = root / name
        found = len(list_images(folder))
        if found != count:
            wrong.append(f"{folder}: {count} images *.png, found {found}")
    if not wrong:
        return ""
    return (
        f"expected under {root}:{list_lines(wrong)}\n"
        "To make SET/HR from folders and archives of benchmark sets, run\n"
        f"  python data_prep/benchmarks.py SOURCE ... --out {root}\n"
        "It makes SET/LR_bicubic/X2/NAMEx2.png with this project's imresize; to check that, replace these files by "
        "those of the usual archives, which were made by MATLAB."
    )


def paper_checks(root: Path) -> Iterator[Check]:
    """Measure the figures that take a minute in total.

    Args:
        root: Folder that contains those of :data:`NEEDED`.

    Yields:
        The checks.

    Raises:
        EvaluationError: If images are missing.
    """
    _require(root)
    for name, parameters, dataset, method, published, tolerance in ROWS:
        task = make_task(name, **parameters)
        yield from _against_published(task, root / dataset, method(task), published, tolerance)
    for scale in (2, 3, 4):
        yield _low_resolution(root / "Set5", scale)


def bm3d_check(
    root: Path, cache: Path | None = None, workers: int | None = None, progress: bool = False
) -> Iterator[Check]:
    """Denoise CBSD68 with CBM3D to check the scale of the noise end to end; this takes more than half an hour.

    The published figure was measured with noise that was neither clipped nor rounded.

    Args:
        root: Folder that contains those of :data:`NEEDED_BM3D`.
        cache: Folder of cached scores, to continue after an interruption.
        workers: Number of processes; the number of CPUs by default.
        progress: Show a progress bar.

    Yields:
        A single check.

    Raises:
        EvaluationError: If images are missing.
        ImportError: If the package bm3d is not installed.
    """
    _require(root, bm3d=True)
    try:
        import bm3d  # noqa: F401 - for its error, before processes start
    except ImportError as error:
        raise ImportError("CBM3D requires the package bm3d, free for non-commercial use: pip install bm3d") from error
    sigma, workers = 50, workers or os.cpu_count() or 1
    task = Denoising(sigma)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        method = _Bm3d(sigma, pool)
        yield from _against_published(
            task,
            root / "CBSD68",
            method,
            method.name,
            (BM3D_TOLERANCE, None),
            cache=cache,
            workers=workers,
            progress=progress,
        )


def report_checks(checks: list[Check]) -> str:
    """Return a Markdown page of checks."""
    rows = [
        f"| {check.what} | {check.published} | {check.measured} | {check.allowed} | {_VERDICT[check.passed]} |"
        for check in checks
    ]
    return "\n".join(
        [
            "# Published figures that need no trained network",
            "",
            "`make paper-check` writes this page: degradations and metrics of this project on the benchmark images, "
            "beside the figures of arXiv 2004.13824 and, for bicubic interpolation, those commonly published. CBM3D is "
            "that of the package bm3d (`make paper-check-slow`), on noise that is neither clipped nor rounded.",
            "",
            "| figure | published | measured | allowed difference | agrees |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _require(root: Path, bm3d: bool = False) -> None:
    if message := missing_benchmarks(root, bm3d):
        raise EvaluationError(message)


def _against_published(
    task: Task,
    folder: Path,
    method: Method,
    row: str,
    tolerance: tuple[float, float | None] | None,
    **options: Any,
) -> Iterator[Check]:
    images = ImageSet.open(folder)
    scores = compare(task, [images], [method], **options)
    published = published_scores(task, images.name)[row]
    for index, (metric, digits) in enumerate((("psnr", 2), ("ssim", 4))):
        figure = getattr(published, metric)
        if figure is None:
            continue
        expected = f"{figure:.{digits}f}"
        mean = float(np.mean([getattr(score, metric) for score in scores]))
        allowed = tolerance[index] if tolerance else None
        yield Check(
            " ".join((task.label, images.name, row, metric.upper())),
            expected,
            f"{mean:.{digits}f}",
            "none" if allowed is None else f"{allowed:g}",
            f"{mean:.{digits}f}" == expected if allowed is None else abs(mean - figure) <= allowed,
        )


def _low_resolution(folder: Path, scale: int) -> Check:
    task = SuperResolution(scale)
    differing = 0
    for name, path in ImageSet.open(folder).files.items():
        low = read_image(folder / input_path(task, name))
        ours = task.degrade(task.reference(read_image(path)))
        differing += int((low != ours).any(axis=2).sum()) if low.shape == ours.shape else ours[..., 0].size
    return Check(
        f"{task.label} {folder.name} low-resolution pixels that differ from MATLAB's",
        "0",
        str(differing),
        "none",
        differing == 0,
    )


class _Bm3d(Method):
    """CBM3D in other processes, on noise before any rounding."""

    def __init__(self, sigma: float, pool: ProcessPoolExecutor) -> None:
        super().__init__("CBM3D")
        self._sigma = sigma
        self._pool = pool

    def identity(self, sample: Sample) -> str:
        """Return the version of the package."""
        return f"bm3d {version('bm3d')} on unrounded noise"

    def restore(self, sample: Sample) -> NDArray[np.uint8]:
        """Denoise."""
        noisy = add_gaussian_noise(sample.reference, self._sigma, image_rng(sample.name, sample.seed), "float")
        return self._pool.submit(_denoise, noisy, self._sigma / PEAK).result()


def _denoise(noisy: NDArray[np.float64], sigma: float) -> NDArray[np.uint8]:
    from bm3d import bm3d_rgb

    return quantize(bm3d_rgb(noisy, sigma))
