"""Scoring methods on sets of images with the protocol of the task."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from panet_plugin.data import write_image
from panet_plugin.errors import EvaluationError
from panet_plugin.evaluation.cache import ScoreCache
from panet_plugin.evaluation.image_sets import ImageSet, Sample, image_size
from panet_plugin.evaluation.methods import Method, unique
from panet_plugin.ranks import Rank, shares
from panet_plugin.tasks import Task


@dataclass(frozen=True)
class Score:
    """Score of a method for an image.

    Attributes:
        dataset: Name of the set.
        image: Name of the image.
        method: Name of the method.
        psnr: Decibels; infinite for equal images.
        ssim: Up to 1.
        lpips: Lower is better; None if not computed.
    """

    dataset: str
    image: str
    method: str
    psnr: float
    ssim: float
    lpips: float | None = None


def compare(
    task: Task,
    sets: Sequence[ImageSet],
    methods: Sequence[Method],
    *,
    seed: int = 0,
    cache: Path | None = None,
    images: Path | None = None,
    lpips: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float] | None = None,
    workers: int | None = None,
    progress: bool = False,
    rank: Rank | None = None,
) -> list[Score]:
    """Score every method on every image.

    Args:
        task: The task, which defines degradation and protocol.
        sets: Benchmark sets with distinct names.
        methods: Methods with distinct names.
        seed: Seed of the degradation.
        cache: Folder of cached scores; None computes everything.
        images: Folder for restored images, ``METHOD/SET/NAME.png``; if given, all images are restored.
        lpips: Function for the third score; see :func:`panet_plugin.evaluation.load_lpips`.
        workers: Number of images processed at a time, except by networks; the number of CPUs by default.
        progress: Show a progress bar.
        rank: This process among several. It computes its share; all scores are available when all processes have added
            theirs to the cache.

    Returns:
        Scores in the order of sets, images and methods.

    Raises:
        EvaluationError: If a method cannot restore a set, or names are not unique; the message lists the files.
        BadImageError: If a file is not an image, or not suitable for the task; the message names the file.
    """
    unique(methods)
    names = [images.name for images in sets]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(f"expected sets with distinct names, got {', '.join(names) or 'none'}")
    for method in methods:
        method.check(sets, task)
    samples = [Sample(images.name, path, task, seed) for images in sets for path in images.files.values()]
    store = ScoreCache(cache) if cache else None
    rank = rank or Rank()
    parts = shares([math.prod(image_size(sample.path)) if rank.world > 1 else 1 for sample in samples], rank.world)
    # Each method is distributed separately, since methods differ in speed, continuing where the previous one ended.
    dealt = [parts[(rank.number - number * len(samples)) % rank.world] for number in range(len(methods))]

    def work(index: int) -> list[Score]:
        sample = samples[index]
        mine = [method for method, indices in zip(methods, dealt, strict=True) if index in indices]
        scores = [_score(sample, method, store, images, lpips) for method in mine]
        # The decoded images: there may be hundreds.
        sample.__dict__.pop("reference", None)
        sample.__dict__.pop("degraded", None)
        return scores

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        futures = [pool.submit(work, index) for index in range(len(samples))]
        try:
            for future in tqdm(as_completed(futures), total=len(futures), unit="image", disable=not progress):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        return [score for future in futures for score in future.result()]


def _score(
    sample: Sample,
    method: Method,
    store: ScoreCache | None,
    images: Path | None,
    lpips: Callable[[NDArray[np.uint8], NDArray[np.uint8]], float] | None,
) -> Score:
    fields = ("psnr", "ssim", "lpips") if lpips else ("psnr", "ssim")
    task, protocol = sample.task, sample.task.protocol
    path = None
    if store:
        path = store.path(
            task=task.describe(),
            protocol=protocol.name,
            fields=fields,
            # The noise of an image depends on its name.
            image=[sample.name, sample.digest, sample.seed],
            method=method.identity(sample),
        )
    found = ScoreCache.read(path, fields) if path and not images else None
    if found is None:
        restored, reference = method.restore(sample), sample.reference
        if restored.shape != reference.shape or restored.dtype != np.uint8:
            raise EvaluationError(
                f"{method.name}: the result for {sample.path} is {restored.dtype} of shape {restored.shape}, expected "
                f"uint8 of shape {reference.shape}"
            )
        try:
            values = [protocol.psnr(restored, reference, task.scale), protocol.ssim(restored, reference, task.scale)]
        except ValueError as error:
            raise EvaluationError(f"{sample.path}: {error}") from error
        if lpips:
            values.append(lpips(restored, reference))
        found = dict(zip(fields, values, strict=True))
        if images:
            write_image(images / method.name / sample.dataset / f"{sample.name}.png", restored)
        if path:
            ScoreCache.write(path, found)
    return Score(sample.dataset, sample.name, method.name, **found)
