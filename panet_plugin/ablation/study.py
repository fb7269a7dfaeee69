"""Running a study."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from panet_plugin.ablation.cost import StepCost, measure
from panet_plugin.ablation.report import Outcome, write_report
from panet_plugin.ablation.runs import Run, in_process
from panet_plugin.ablation.settings import Ablation, budget
from panet_plugin.data import read_image, write_image
from panet_plugin.evaluation import ImageSet, Score, bicubic, compare, degraded
from panet_plugin.files import write_bytes


def run(
    ablation: Ablation,
    data: Sequence[Path],
    out: Path,
    *,
    jobs: int = 1,
    threads: int = 1,
    device: str = "cpu",
) -> str:
    """Train and score every setting with every seed, measure the cost of a step, and write the report.

    Interrupted runs are continued and finished ones are not repeated. The report is updated after every run.

    Args:
        ablation: The study.
        data: Folders of clean benchmark images, or with these in ``HR``.
        out: Folder of the runs, ``SETTING/seedN``, and of ``ablation.md``, ``.csv``, ``.json`` and ``.png``.
        jobs: Number of concurrent runs.
        threads: Threads of each run, and for measuring costs.
        device: Device for scoring; MMEngine chooses the device for training.

    Returns:
        The report as Markdown.

    Raises:
        AblationError: If a folder contains a run of another setting.
        EvaluationError: If there are no images.
    """
    out = out.absolute()
    task = ablation.task()
    sets = [ImageSet.open(folder) for folder in data]
    if ablation.crop:
        sets = [_middle(images, ablation.crop, out / f"middle{ablation.crop}" / images.name) for images in sets]
    untouched = compare(task, sets, [degraded(task) if task.scale == 1 else bicubic(task)], cache=out / "cache")
    runs = {
        (setting.name, setting.seed): Run(
            setting, out / setting.name / f"seed{setting.seed}", task, sets, out / "cache", threads, device
        )
        for setting in ablation.trainings()
    }
    for each in runs.values():
        each.check()
    scores: dict[tuple[str, int], list[Score]] = {}

    def report(costs: dict[str, StepCost]) -> str:
        return write_report(
            out,
            Outcome(
                ablation.name,
                task,
                budget(ablation.setting(ablation.reference).config()),
                ablation.crop,
                threads,
                ablation.reference,
                list(runs),
                {key: scores[key] for key in runs if key in scores},
                untouched,
                costs,
            ),
        )

    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(in_process, each.carry_out, log=each.folder / "console.log"): key for key, each in runs.items()
        }
        try:
            for future in as_completed(futures):
                setting, seed = key = futures[future]
                scores[key] = future.result()
                print(f"{setting}, seed {seed}: {len(scores)} of {len(runs)} runs finished", flush=True)
                report({})
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return report(_costs(ablation, out / "costs.json", threads))


def _middle(images: ImageSet, side: int, folder: Path) -> ImageSet:
    """Write the center crop of every image, and return the set of these."""
    middles = {}
    for name, path in images.files.items():
        image = read_image(path, gray=None)
        top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
        middles[name] = folder / f"{name}.png"
        write_image(middles[name], image[top : top + side, left : left + side])
    return ImageSet(images.name, middles)


def _costs(ablation: Ablation, path: Path, threads: int) -> dict[str, StepCost]:
    """Measure the cost of a step, unless the costs of exactly these settings are stored."""
    settings = {name: ablation.setting(name) for name in ablation.settings}
    key = {"threads": threads, "settings": {name: setting.fingerprint() for name, setting in settings.items()}}
    if path.exists() and (found := json.loads(path.read_bytes()))["of"] == key:
        return {name: StepCost(**cost) for name, cost in found["costs"].items()}
    costs = measure(settings, ablation.reference, threads)
    content = {"costs": {name: asdict(cost) for name, cost in costs.items()}, "of": key}
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
    return costs
