"""Score methods on benchmark sets with the published protocol of a task; write comparison.md, .csv and .json.

``--figure`` also draws images as restored by the methods.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from panet_plugin.checkpoints import checkpoint_method
from panet_plugin.command_line import (
    add_device_option,
    add_task_options,
    add_window_option,
    parse_required_task,
    report_errors,
)
from panet_plugin.evaluation import (
    BASELINES,
    FolderMethod,
    ImageSet,
    Method,
    choose_figures,
    compare,
    load_lpips,
    markdown,
    write_figures,
    write_reports,
)
from panet_plugin.inference import piece_limit
from panet_plugin.ranks import join_group
from panet_plugin.tasks import Task


def named_path(text: str) -> tuple[str, Path]:
    """Parse ``NAME=PATH``."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, got {text!r}")
    return name, Path(path)


def method_or_path(text: str) -> tuple[str, Path | None]:
    """Parse the name of a method that needs no file, or ``NAME=PATH``."""
    return (text, None) if text in BASELINES else named_path(text)


def make_method(task: Task, name: str, path: Path | None, config: Path | None, **options: Any) -> Method:
    """Return the method for an argument of ``--methods``; the options are those of networks."""
    if path is None:
        return BASELINES[name](task)
    if path.is_dir():
        return FolderMethod(name, path)
    return checkpoint_method(name, path, config, **options)


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_task_options(parser)
    parser.add_argument(
        "--data", nargs="+", type=Path, required=True, metavar="DIR", help="clean images, in DIR or DIR/HR"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        type=method_or_path,
        required=True,
        metavar="METHOD",
        help="degraded, bicubic, NAME=CHECKPOINT of either framework, this project or the original, or NAME=FOLDER of "
        "result images",
    )
    parser.add_argument(
        "--config",
        action="append",
        type=named_path,
        default=[],
        metavar="NAME=CONFIG",
        help="training config (.py or .yml) of a checkpoint that does not identify its network",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/compare"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the degradation; default: %(default)s")
    add_device_option(parser)
    parser.add_argument(
        "--chop",
        action="store_true",
        help="restore in pieces, split as the original code did for its published scores, which takes less time; "
        "default: restore whole images",
    )
    add_window_option(parser, "; none with --chop")
    parser.add_argument("--save-images", action="store_true", help="keep restored images in DIR/images/METHOD/SET")
    parser.add_argument("--lpips", action="store_true", help="also LPIPS (needs torchmetrics)")
    parser.add_argument(
        "--figure",
        nargs="+",
        default=[],
        metavar="CHOICE",
        help="write DIR/figures/SET_NAME.png: the image NAME (or SET/NAME) and the crop from every method where they "
        "differ most, or NAME:X,Y,WIDTH,HEIGHT; auto selects the image whose scores differ most",
    )
    args = parser.parse_args()
    task, configs = parse_required_task(parser, args), dict(args.config)
    if strangers := configs.keys() - dict(args.methods).keys():
        parser.error(f"--config: not in --methods: {', '.join(sorted(strangers))}")
    with report_errors(), join_group(args.out) as group:
        sets = [ImageSet.open(folder) for folder in args.data]
        chop = piece_limit(task) if args.chop else None
        # Whole-image attention in the pieces, as in the original.
        window = None if args.window == "trained" and chop else args.window
        figures = choose_figures(args.figure, sets, task)
        options = {"device": args.device, "chop": chop, "window": window}
        methods = [make_method(task, name, path, configs.get(name), **options) for name, path in args.methods]
        images = args.out / "images" if args.save_images else None
        score = partial(
            compare,
            task,
            sets,
            methods,
            seed=args.seed,
            cache=args.out / "cache",
            lpips=load_lpips(args.device) if args.lpips else None,
            progress=group.rank.number == 0,
        )
        if group.rank.world > 1:
            score(images=images, rank=group.rank)
            reports = group.gather(True)
            if reports is None:
                return
            if all(reports):
                images = None
        # With several processes, the first one finds all scores in the cache, except those of processes that failed.
        scores = score(images=images)
        write_reports(args.out, task, scores, args.seed, chop, window)
        if args.save_images:
            # Reuse the images that were just written.
            methods = [FolderMethod(method.name, args.out / "images" / method.name) for method in methods]
        for path in write_figures(args.out / "figures", figures, task, sets, methods, scores, args.seed):
            print(path)
    print(markdown(task, scores, args.seed, chop, window))
