"""Restore images: files, folders, patterns or a list, with any checkpoint or a bundled model."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from panet_plugin.checkpoints import load_any, load_task
from panet_plugin.command_line import (
    add_device_option,
    add_task_options,
    add_window_option,
    parse_task,
    positive,
    report_errors,
    task_parameters,
)
from panet_plugin.data.image_writer import FORMATS
from panet_plugin.inference import (
    DTYPES,
    Failure,
    Job,
    JobError,
    Level,
    Restorer,
    find_jobs,
    piece_limit,
    read_channels,
    read_level,
    restore_files,
    restored_together,
)
from panet_plugin.ranks import join_group, shares
from panet_plugin.tasks import SuperResolution, Task, make_task
from panet_plugin.weights import bundled, list_bundled


def main() -> None:
    """Parse the command line and restore."""
    parser = make_parser()
    args = parser.parse_args()
    if args.max_pixels:
        # Pillow refuses images with more than twice this number.
        Image.MAX_IMAGE_PIXELS = -(-args.max_pixels // 2)
    asked = parse_task(parser, args)
    if args.weights is None and (asked is None or args.config is not None):
        there = ", ".join(dict.fromkeys(task.name for task in list_bundled().values())) or "none here"
        parser.error(f"set --weights CHECKPOINT, or only --task to use a bundled model ({there})")
    with report_errors(), join_group(args.out) as group:
        if "-" in args.inputs and group.rank.world > 1:
            raise JobError("-: several processes cannot share a list; pass folders, patterns or files")
        suffix = args.format and f".{args.format}"
        jobs, failures = find_jobs(args.inputs, args.out, suffix, sys.stdin if "-" in args.inputs else ())
        total = len(jobs) + len(failures)
        dealt = deal(jobs, group.rank.world, args.batch)
        mine = dealt[group.rank.number]
        todo = [job for job in mine if not (args.skip_existing and job.target.exists())]
        if skipped := len(mine) - len(todo):
            print(f"{skipped} skipped because their results exist")
        progress = sys.stderr.isatty() and not args.no_progress and group.rank.number == 0
        failed: list[Failure] = []
        for weights, alike in choose(args, asked, todo).items():
            restorer, task = prepare(parser, args, weights, asked)
            failed += restore_files(restorer, alike, task, progress=progress)
        reports = group.gather(failed)
    if reports is None:
        return
    ended_early = [number for number, report in enumerate(reports) if report is None]
    for number in ended_early:
        reason = f"process {number} exited early; run the same command with --skip-existing to restore it"
        failures += [Failure(str(job.source), reason) for job in dealt[number] if not job.target.exists()]
    failures += [Failure(*failure) for report in reports for failure in report or ()]
    for name, reason in failures:
        print(f"error: {name}: {reason}", file=sys.stderr)
    if group.rank.world > 1:
        print(f"{total - len(failures)} of {total} restored by {group.rank.world} processes")
    if failures or ended_early:
        sys.exit(f"{len(failures)} of {total} failed")


def deal(jobs: Sequence[Job], world: int, batch: int) -> list[list[Job]]:
    """Distribute the images to processes by their pixels; images of one batch stay together."""
    if world == 1:
        return [list(jobs)]
    groups, pixels = zip(*restored_together(jobs, batch), strict=True) if jobs else ((), ())
    return [[job for index in indices for job in groups[index]] for indices in shares(pixels, world)]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, folder, pattern, or - to read a list of these"
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("restored"), help="folder, or file for a single image; default: restored"
    )
    parser.add_argument(
        "--format", choices=[suffix[1:] for suffix in FORMATS], help="format of the results; default: that of the input"
    )
    parser.add_argument("--skip-existing", action="store_true", help="skip images whose results exist")
    parser.add_argument("--weights", type=Path, metavar="CHECKPOINT", help="default: the bundled model for the task")
    parser.add_argument("--config", type=Path, help="config of a checkpoint that does not identify its network")
    add_task_options(parser, required=False)
    group = parser.add_argument_group(
        "method",
        "default: whole images within the limits, otherwise pieces with the same result, or tiles if there are no "
        "such pieces",
    )
    ways = group.add_mutually_exclusive_group()
    ways.add_argument("--whole", action="store_true", help="always restore whole images, regardless of time and memory")
    ways.add_argument(
        "--tile", type=positive, metavar="SIDE", help="restore in square tiles with sides of this many pixels"
    )
    ways.add_argument(
        "--chop",
        type=positive,
        nargs="?",
        const=0,
        metavar="PIXELS",
        help="split as the original does, into pieces of fewer pixels than this; default: as published for the task",
    )
    group.add_argument(
        "--overlap", type=int, default=16, help="pixels over which tiles are blended; default: %(default)s"
    )
    add_window_option(group, "; none with --whole, --tile and --chop")
    group.add_argument(
        "--self-ensemble", action="store_true", help="average over 8 flips and transpositions; takes 8 times as long"
    )
    group.add_argument(
        "--max-memory", type=memory, metavar="SIZE", help="such as 800M or 4G; default: half of the free memory"
    )
    group.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="pixels of the largest image to open; default: 178956970, as a guard against decompression bombs",
    )
    group.add_argument("--max-seconds", type=float, default=60, help="limit for one whole image; default: %(default)s")
    group.add_argument(
        "--batch", type=positive, default=8, help="maximum number of images or tiles at once; default: %(default)s"
    )
    add_device_option(group)
    group.add_argument("--dtype", choices=DTYPES, default="fp32", help="data type of the network; default: %(default)s")
    group.add_argument("--no-progress", action="store_true", help="hide the progress bar")
    return parser


def choose(args: argparse.Namespace, asked: Task | None, jobs: Sequence[Job]) -> dict[Path, list[Job]]:
    """Return the images by the checkpoint that restores them; print the estimated level of each.

    Levels are estimated unless the options set them, and if they can be compared with those of the network's training.
    """
    given = task_parameters(args)
    networks = {args.weights: load_task(args.weights, args.config)} if args.weights else {**list_bundled()}
    task = networks.get(args.weights, asked)
    if task and (task.strength in ("", *given) or (asked and asked.name != task.name)):
        task = None
    chosen: dict[Path, list[Job]] = {}
    for job in jobs:
        channels, level = look(job.source, task)
        value = level.value if level else None
        weights: Path = args.weights
        if asked and not weights:
            weights = bundled(asked.name, level=value, channels=channels, **given)
        chosen.setdefault(weights, []).append(job)
        if level and (trained := networks[weights]):
            print_level(job.source, level, trained)
    return chosen


def look(path: Path, task: Task | None) -> tuple[int | None, Level | None]:
    """Return the number of channels of an image and its level for a task; None if it cannot be read."""
    try:
        return read_channels(path), read_level(path, task) if task else None
    # The error is reported when the image is restored.
    except (OSError, ValueError, MemoryError):
        return None, None


def print_level(path: Path, level: Level, trained: Task) -> None:
    """Print the level of an image, and a warning if the network was not trained for it."""
    low, high = trained.levels
    levels = f"{low:g} to {high:g}" if low < high else f"{low:g}"
    if level.value is None:
        print(f"{path}: {trained.strength} unknown ({level.how}); using a network for {levels}")
        return
    print(f"{path}: {trained.strength} {level.value:g} ({level.how})")
    if not low <= level.value <= high and (level.exact or low < high):
        print(
            f"warning: {path}: the network was trained for {trained.strength} {levels}, not {level.value:g}",
            file=sys.stderr,
        )


def prepare(
    parser: argparse.ArgumentParser, args: argparse.Namespace, weights: Path, asked: Task | None
) -> tuple[Restorer, Task | None]:
    """Load a network and print its task and settings; exit with an error if they do not fit."""
    task, parameters = load_task(weights, args.config), task_parameters(args)
    if asked is not None:
        known = task
        task = make_task(**{**known.describe(), **parameters}) if known and known.name == asked.name else asked
        if known and not known.covers(task):
            print(f"warning: {weights} was trained for {known.describe()}, not {task.describe()}", file=sys.stderr)
    network = load_any(weights, args.config)
    mode = "whole" if args.whole else "chop" if args.chop is not None else "tiles" if args.tile else "auto"
    try:
        restorer = Restorer(
            network,
            args.device,
            dtype=DTYPES[args.dtype],
            mode=mode,
            # These modes, requested explicitly, do not restrict attention to a window.
            window=None if args.window == "trained" and mode != "auto" else args.window,
            tile=args.tile or 192,
            overlap=args.overlap,
            limit=args.chop or piece_limit(task),
            ensemble=args.self_ensemble,
            batch=args.batch,
            max_memory=args.max_memory,
            max_seconds=args.max_seconds,
        )
        task = fit(task, restorer)
    except ValueError as error:
        parser.error(str(error))
    if args.chop == 0 and task is None:
        parser.error("--chop: set --task, or the pixels of a piece: 6800 for color denoising, 6400 for all others")
    if args.self_ensemble and task and not task.survives_flips:
        parser.error(
            f"--self-ensemble does not work for {task.name}: no network was trained on its flipped degradation"
        )
    words = task.label if task else "task unknown"
    words += f", attention in a window of {restorer.window}" if restorer.window else ""
    print(f"{type(network).__name__}, {words}; on {restorer.device} in {args.dtype}")
    return restorer, task


def fit(task: Task | None, restorer: Restorer) -> Task | None:
    """Return the task; without one, super-resolution if the network upscales.

    Raises:
        ValueError: If the network does not fit the task, or does not accept images.
    """
    if task is None:
        return SuperResolution(restorer.scale) if restorer.scale > 1 else None
    if task.scale != restorer.scale or (task.fixed_channels and restorer.channels != task.channels):
        made = f"{restorer.channels} channels and a scale of {restorer.scale}"
        raise ValueError(f"{task.describe()} does not fit a network with {made}")
    return task


def memory(text: str) -> float:
    """Parse a number of bytes such as ``800M`` or ``4G``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.upper())
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"expected a size such as 800M or 4G, got {text!r}")
    return float(found[1]) * 1000 ** " KMGT".index(found[2] or " ")
