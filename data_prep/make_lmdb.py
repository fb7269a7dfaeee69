r"""Prepare any folder of images for training: LR images, sub-images and LMDBs that BasicSR and MMagic read.

For ``--name NAME``, under ``--out ROOT``:

  NAME_HR/KEY.png                      HR images, cropped to a multiple of the scales
  NAME_LR_bicubic/X2/KEYx2.png         LR images (and X3, X4)
  NAME_HR_sub/KEY_s001.png             sub-images; the LR ones have the same names
  NAME_LR_bicubic/X2_sub/KEY_s001.png
  NAME_HR_sub.lmdb                     LMDBs with meta_info.txt; keys are the names without .png
  NAME_LR_bicubic_X2_sub.lmdb
  NAME.json                            what the set was made from

With ``--subimage none`` there are no sub-images, and the LMDBs, NAME_HR.lmdb and NAME_LR_bicubic_X2.lmdb, hold the
whole images: this is what the configs validate on. KEY is the name of the source image without its suffix.

DIV2K, downloaded and unpacked to data/DIV2K, becomes what the configs expect by

  python data_prep/make_lmdb.py --hr data/DIV2K/DIV2K_train_HR --lr data/DIV2K/DIV2K_train_LR_bicubic \
      --out data/DIV2K --name DIV2K_train
  python data_prep/make_lmdb.py --hr data/DIV2K/DIV2K_valid_HR --lr data/DIV2K/DIV2K_valid_LR_bicubic \
      --out data/DIV2K --name DIV2K_valid --subimage none

A run that was interrupted is taken up by the same command; a set that is complete is left alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from panet_plugin.data import prepare_set


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
    parser.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4], help="scales (default: 2 3 4)")
    parser.add_argument(
        "--subimage",
        nargs="+",
        action=_Subimage,
        default=(480, 240),
        metavar="SIZE STEP",
        help="side and step of the HR sub-images in pixels, or none (default: 480 240)",
    )
    parser.add_argument("--skip-bad", action="store_true", help="list bad images and go on instead of stopping")
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads (default: one per core)")
    return parser.parse_args(arguments)


def main() -> None:
    """Prepare one set."""
    arguments = parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        prepare_set(
            arguments.hr,
            arguments.out,
            arguments.name,
            scales=arguments.scale,
            lr_dir=arguments.lr,
            subimage=arguments.subimage,
            skip_bad=arguments.skip_bad,
            workers=arguments.workers,
        )
    except (ValueError, OSError) as error:
        sys.exit(f"make_lmdb: {error}")


if __name__ == "__main__":
    main()
