"""Compare the PSNR and the time of restoring images with a window, in tiles, in the original's pieces, and whole.

Seconds per megapixel are processor time of one thread, which other programs hardly affect. Images are chosen evenly
from a benchmark set.
"""

import argparse
import time
from pathlib import Path

import torch

from panet_plugin.command_line import add_task_options, parse_required_task, report_errors, task_parameters
from panet_plugin.evaluation import ImageSet, Sample
from panet_plugin.files import write_bytes
from panet_plugin.inference import Restorer, piece_limit
from panet_plugin.tasks import Task
from panet_plugin.weights import bundled, load_official


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="clean images, in DIR or DIR/HR")
    parser.add_argument("--images", type=int, default=4, help="number of images; default: 4")
    parser.add_argument("--weights", type=Path, metavar="CHECKPOINT", help="default: the bundled model for the task")
    parser.add_argument(
        "--tiles", type=int, nargs="*", default=[32, 48, 64, 96, 128, 192], metavar="SIDE", help="sides of tiles"
    )
    parser.add_argument(
        "--windows", type=int, nargs="*", default=[16, 24, 32, 48], metavar="N", help="sides of the attention's window"
    )
    parser.add_argument(
        "--no-whole", action="store_true", help="skip whole images without a window, which take longest"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the table to this Markdown file")
    add_task_options(parser)
    args = parser.parse_args()
    task = parse_required_task(parser, args)
    with report_errors():
        images = ImageSet.open(args.data)
        files = list(images.files.values())
        chosen = files[:: max(1, len(files) // args.images)][: args.images]
        samples = [Sample(images.name, path, task) for path in chosen]
        network = load_official(args.weights or bundled(args.task, **task_parameters(args)))
        ways = {f"window {side}": {"window": side} for side in args.windows}
        ways |= {
            f"tiles {side}": {"window": None, "mode": "tiles", "tile": side, "overlap": min(16, side // 4)}
            for side in args.tiles
        }
        ways["cut as published"] = {"window": None, "mode": "chop", "limit": piece_limit(task)}
        if not args.no_whole:
            ways["whole"] = {"window": None, "max_memory": float("inf")}
        lines = ["| | PSNR | seconds per megapixel |", "|---|---|---|"]
        for name, options in ways.items():
            psnr, seconds = measure(task, samples, Restorer(network, **options))
            lines.append(f"| {name} | {psnr:.2f} | {seconds:.0f} |")
            print(lines[-1], flush=True)
        if args.out:
            write_bytes(args.out, ("\n".join(lines) + "\n").encode())


def measure(task: Task, samples: list[Sample], restorer: Restorer) -> tuple[float, float]:
    """Return the mean PSNR, and the processor time in seconds per megapixel of the degraded images."""
    torch.set_num_threads(1)
    scores, seconds, pixels = [], 0.0, 0
    for sample in samples:
        image = sample.degraded
        start = time.process_time()
        restored = restorer.restore(image[..., 0] if image.shape[2] == 1 else image)
        seconds += time.process_time() - start
        pixels += image.shape[0] * image.shape[1]
        scores.append(task.protocol.psnr(restored.reshape(sample.reference.shape), sample.reference, task.scale))
    return sum(scores) / len(scores), seconds / pixels * 1e6


if __name__ == "__main__":
    main()
