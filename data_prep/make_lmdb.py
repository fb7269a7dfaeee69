r"""Prepare any folder of images for training: LMDBs of HR and LR images or sub-images that BasicSR and MMagic read.

For ``--name NAME``, under ``--out ROOT``:

  NAME_HR_sub.lmdb                     LMDBs with meta_info.txt; keys are KEY_s001 and so on
  NAME_LR_bicubic_X2_sub.lmdb          (and X3, X4)
  NAME.json                            what the set was made from, and hashes of all it holds

With ``--subimage none`` there are no sub-images, and the LMDBs, NAME_HR.lmdb and NAME_LR_bicubic_X2.lmdb, hold the
whole images: this is what the configs validate on. Attention takes time that grows with the square of the pixels, so
``--crop 240`` keeps the middle of each for that. KEY is the name of the source image without its suffix. With
``--folders`` everything is written as files too:

  NAME_HR/KEY.png                      HR images, cropped to a multiple of the scales
  NAME_LR_bicubic/X2/KEYx2.png         LR images
  NAME_HR_sub/KEY_s001.png             sub-images; the LR ones have the same names
  NAME_LR_bicubic/X2_sub/KEY_s001.png

DIV2K and its like are prepared more easily by data_prep/div2k.py. A run that was interrupted is taken up by the same
command; a set that is complete is left alone.
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
        "--lr", type=Path, metavar="DIR", help="folder of given LR images: X2/KEYx2.* (default: made by bicubic)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ROOT", help="where the set goes")
    parser.add_argument(
        "--name", default="DIV2K_train", help="name of the set (default: %(default)s, which the configs train on)"
    )
    parser.add_argument("--scale", type=int, nargs="*", default=[2, 3, 4], help="none for HR only (default: 2 3 4)")
    parser.add_argument(
        "--subimage",
        nargs="+",
        action=_Subimage,
        default=(480, 240),
        metavar="SIZE STEP",
        help="side and step of the HR sub-images in pixels, or none (default: 480 240)",
    )
    parser.add_argument(
        "--crop", type=int, metavar="SIDE", help="keep only the middle SIDE x SIDE pixels of each HR image"
    )
    parser.add_argument("--folders", action="store_true", help="write PNG files besides the LMDBs")
    parser.add_argument("--skip-bad", action="store_true", help="list bad images and go on instead of stopping")
    parser.add_argument(
        "--shard", type=shard, metavar="I/N", help="make the I-th of N parts alone; others may do theirs elsewhere"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads (default: one per core)")
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
