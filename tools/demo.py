"""Prepare the sample set, train a small PANet x2 on it, restore the held-out images and report.

Run it from the top of the project. The commands that it prints can also be run manually.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from torch import nn

from panet_plugin.checkpoints import load_any
from panet_plugin.data import Layout, read_image, write_image
from panet_plugin.data.image_reader import list_images
from panet_plugin.degradations import imresize
from panet_plugin.files import write_bytes
from panet_plugin.inference import Restorer
from panet_plugin.metrics import PROTOCOLS
from panet_plugin.visualization import Comparison, Panel, choose_box, comparison_figure, save_figure

CONFIG = "configs/panet/panet_lite_x2_sample.py"
SAMPLE = Path(os.environ.get("SAMPLE_ROOT", "data/sample"))
SCALE = 2


def run(*command: str) -> None:
    """Print and run a command with a Python script of this project."""
    print(f"\n$ python {shlex.join(command)}", flush=True)
    if code := subprocess.run([sys.executable, *command]).returncode:
        sys.exit(code)


def report(network: nn.Module, out: Path) -> float:
    """Restore the held-out images; write them, a table and a figure.

    Args:
        network: The trained network.
        out: Folder of the report.

    Returns:
        Mean gain of PANet over bicubic interpolation in decibels.
    """
    layout, protocol, restorer = Layout("DIV2K_valid"), PROTOCOLS["sr_y"], Restorer(network)
    names, scores, shown = [], [], []
    for path in list_images(SAMPLE / layout.hr):
        truth = read_image(path)
        low = read_image(SAMPLE / layout.lr(SCALE) / f"{path.stem}x{SCALE}.png")
        restored = {"bicubic": imresize(low, SCALE), "PANet": restorer.restore(low)}
        write_image(out / "restored" / path.name, restored["PANet"])
        names.append(path.stem)
        scores.append(
            [[score(image, truth, SCALE) for score in (protocol.psnr, protocol.ssim)] for image in restored.values()]
        )
        panels = [Panel("LR", low)]
        panels += [
            Panel(name, image, *score) for (name, image), score in zip(restored.items(), scores[-1], strict=True)
        ]
        box = choose_box(truth, list(restored.values()), SCALE)
        shown.append(Comparison(path.stem, truth, box, panels))
    names.append("mean")
    scores.append(np.mean(scores, axis=0).tolist())
    table = ["| image | bicubic PSNR / SSIM | PANet PSNR / SSIM |", "|---|---|---|"]
    for name, (bicubic, panet) in zip(names, scores, strict=True):
        table.append(f"| {name} | {bicubic[0]:.2f} / {bicubic[1]:.4f} | {panet[0]:.2f} / {panet[1]:.4f} |")
    write_bytes(out / "report.md", "\n".join([*table, "", "![comparison](comparison.png)", ""]).encode())
    note = f"x{SCALE} super-resolution. PSNR / SSIM on luma of whole images; enlarged: where both differ most."
    save_figure(out / "comparison.png", comparison_figure(shown, note))
    print("\n".join(table))
    return scores[-1][1][0] - scores[-1][0][0]


def main() -> None:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"), help="default: %(default)s")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of the config")
    args = parser.parse_args()
    begin = time.monotonic()
    options = ["--cfg-options", *args.cfg_options] if args.cfg_options else []
    run("data_prep/sample.py", "--out", str(SAMPLE))
    run("tools/train.py", CONFIG, "--work-dir", str(args.work_dir), "--resume", *options)
    checkpoint = Path((args.work_dir / "last_checkpoint").read_text())
    print(f"\nRestoring the held-out images with {checkpoint}\n")
    gain = report(load_any(checkpoint), args.work_dir)
    print(f"\nPANet: {gain:+.2f} dB over bicubic; this run took {(time.monotonic() - begin) / 60:.1f} minutes.")
    print(f"Table, figure and images: {args.work_dir}/report.md, comparison.png, restored/")


if __name__ == "__main__":
    main()
