r"""Prepare any folder of images for training: LMDBs of HR and LR images or sub-images that BasicSR and MMagic read.

With ``--name NAME --out ROOT``, it writes to ROOT:

  NAME_HR_sub.lmdb                     LMDBs with meta_info.txt; keys are KEY_s001 and so on
  NAME_LR_bicubic_X2_sub.lmdb          (and X3, X4)
  NAME.json                            sources, and hashes of the contents

With ``--subimage none`` there are no sub-images, and the LMDBs, NAME_HR.lmdb and NAME_LR_bicubic_X2.lmdb, contain whole
images: the configs validate on these. The time of attention grows with the square of the pixels, so use ``--crop 240``
to keep the center of each for validation. KEY is the name of the source image without its suffix. With ``--folders``,
everything is also written as files:

  NAME_HR/KEY.png                      HR images, cropped to a multiple of the scales
  NAME_LR_bicubic/X2/KEYx2.png         LR images
  NAME_HR_sub/KEY_s001.png             sub-images; the LR ones have the same names
  NAME_LR_bicubic/X2_sub/KEY_s001.png

For DIV2K and similar sets, data_prep/div2k.py is simpler. Run the same command again to continue after an interruption;
complete sets are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from panet_plugin.data import prepare_set
from panet_plugin.data.command import run_command, shard


class _Subimage(argparse.Action):
    """SIZE STEP, or the word none."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            window = None if values == ["none"] else tuple(int(value) for value in values)
        except ValueError:
            window = ()
        if window is not None and len(window) != 2:
            parser.error(f"{option_string}: expected SIZE STEP in pixels, or none, got {' '.join(values)}")
        setattr(namespace, self.dest, window)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr", type=Path, required=True, metavar="DIR", help="folder of HR images, of any format")
    parser.add_argument(
        "--lr",
        type=Path,
        metavar="DIR",
        help="folder of LR images, X2/KEYx2.*; default: LR images are made by bicubic downsampling",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="folder for the set")
    parser.add_argument(
        "--name", default="DIV2K_train", help="name of the set; default: %(default)s, which the configs train on"
    )
    parser.add_argument(
        "--scale", type=int, nargs="*", default=[2, 3, 4], help="scales, or none for HR only; default: 2 3 4"
    )
    parser.add_argument(
        "--subimage",
        nargs="+",
        action=_Subimage,
        default=(480, 240),
        metavar="SIZE STEP",
        help="side and step of the HR sub-images in pixels, or none; default: 480 240",
    )
    parser.add_argument(
        "--crop", type=int, metavar="SIDE", help="keep only the central SIDE x SIDE pixels of each HR image"
    )
    parser.add_argument("--folders", action="store_true", help="also write PNG files")
    parser.add_argument("--skip-bad", action="store_true", help="skip and list bad images instead of stopping")
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="make only part I of N; other machines may make the others at the same time",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads; default: one per core")
    return parser.parse_args(arguments)


def main() -> None:
    """Prepare one set."""
    arguments = parse_args()
    prepare_set(
        arguments.hr,
        arguments.out,
        arguments.name,
        scales=arguments.scale,
        lr_dir=arguments.lr,
        subimage=arguments.subimage,
        crop=arguments.crop,
        folders=arguments.folders,
        skip_bad=arguments.skip_bad,
        workers=arguments.workers,
        shard=arguments.shard,
    )


if __name__ == "__main__":
    run_command("make_lmdb", main)
