"""Draw the attention of selected pixels of an image, as figures and as an interactive page.

Only the weights of these pixels are computed, exactly; the network runs up to its attention block.
"""

import argparse
from pathlib import Path

from panet_plugin.archs import attention_window
from panet_plugin.checkpoints import load_any
from panet_plugin.command_line import add_device_option, add_window_option, report_errors
from panet_plugin.data import read_image
from panet_plugin.files import write_bytes
from panet_plugin.tasks import Denoising
from panet_plugin.visualization import (
    AttentionProbe,
    attention_figure,
    attention_page,
    grid,
    save_figure,
    takes_gray,
)


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="as the network receives it: noisy, small, ...")
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="CKPT",
        help="checkpoint of either framework, this project or the original",
    )
    parser.add_argument(
        "--config", type=Path, help="config (.py or .yml) of a checkpoint that does not identify its network"
    )
    parser.add_argument(
        "--at",
        nargs="+",
        type=int,
        default=[],
        metavar="X Y",
        help="columns and rows of pixels; writes a figure for each",
    )
    parser.add_argument("--html", action="store_true", help="also write an interactive page for these pixels")
    parser.add_argument("--every", type=int, metavar="N", help="also include a grid of every N-th pixel in the page")
    parser.add_argument("--block", metavar="PATH", help="the attention block to show, if a network has several")
    add_window_option(parser, "")
    parser.add_argument(
        "--matches", type=int, default=6, metavar="K", help="number of best matches to list; default: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/attention"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--dpi", type=float, default=100, help="resolution of figures 13 inches wide; default: %(default)s"
    )
    add_device_option(parser)
    args = parser.parse_args()
    points = list(zip(args.at[::2], args.at[1::2], strict=False))
    if len(args.at) % 2:
        parser.error(f"--at takes pairs of X and Y, got {len(args.at)} numbers")
    if args.every is not None and not args.html:
        parser.error("--every requires --html")
    if not points and args.every is None:
        parser.error("select pixels with --at X Y, or with --html --every N")
    for name in ("matches", "dpi"):
        if not 1 <= getattr(args, name) <= 1000:
            parser.error(f"--{name} must be from 1 to 1000, got {getattr(args, name)}")
    with report_errors():
        network = load_any(args.weights, args.config).to(args.device)
        # The same conversion from RGB to gray as everywhere else.
        image = Denoising(gray=takes_gray(network)).reference(read_image(args.image))
        with attention_window(network, args.window, getattr(network, "trained_patch", None)):
            probe = AttentionProbe(network, image, args.block)
        # Compute everything before writing anything.
        views = [probe.views([point], args.matches)[0] for point in points]
        if args.html:
            if args.every is not None:
                height, width = image.shape[:2]
                points = sorted({*points, *grid(width, height, args.every)}, key=lambda point: point[::-1])
            page = attention_page(probe, points, args.image.name, args.matches, progress=True)
        for view in views:
            path = args.out / f"{args.image.stem}_{view.x}_{view.y}.png"
            save_figure(path, attention_figure(probe, view), args.dpi)
            print(path)
        if args.html:
            path = args.out / f"{args.image.stem}.html"
            write_bytes(path, page.encode())
            print(path)
