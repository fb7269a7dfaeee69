r"""Prepare DIV2K, or other pictures in its place, for training and validation with BasicSR and MMagic.

  python data_prep/div2k.py --root data/DIV2K                             download, check, unpack and prepare all
  python data_prep/div2k.py --root data/DIV2K --scales 2 --subset train   only a part of it
  python data_prep/div2k.py --root data/DIV2K --scales                    HR only, for denoising and the like
  python data_prep/div2k.py --root data/DIV2K --from-archives DOWNLOADS   archives that were downloaded already
  python data_prep/div2k.py --root data/DF2K --from-folder DF2K --subset train
                                                            unpacked DIV2K, Flickr2K, DF2K or any folder of pictures
  python data_prep/div2k.py --root data/DF2K --from-folder DIV2K Flickr2K   the pictures of several folders

Under ROOT, and this is what the configs read (DIV2K_ROOT=ROOT if it is not data/DIV2K):

  DIV2K_train_HR_sub.lmdb, DIV2K_train_LR_bicubic_X{2,3,4}_sub.lmdb    sub-images of 480x480 pixels every 240
  DIV2K_valid_HR.lmdb, DIV2K_valid_LR_bicubic_X{2,3,4}.lmdb            the middle 240x240 pixels
  DIV2K_train.json, DIV2K_valid.json                                   counts and hashes, for data_prep/verify.py
  archives/, DIV2K_{train,valid}_HR/, DIV2K_{train,valid}_LR_bicubic/  what was downloaded and unpacked

LR images that are not given are made by MATLAB's bicubic. A run that was interrupted is taken up by the same command;
what is complete is left alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from panet_plugin.data.command import run_command, shard
from panet_plugin.data.datasets import DIV2K, DIV2K_URL
from panet_plugin.data.div2k import prepare_div2k


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/DIV2K"), help="where the set goes (%(default)s)")
    parser.add_argument("--scales", type=int, nargs="*", default=[2, 3, 4], help="scales; none for HR only (2 3 4)")
    parser.add_argument("--subset", choices=[*DIV2K], help="only this one (default: all)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--from-archives", type=Path, metavar="DIR", help="folder of downloaded archives")
    source.add_argument(
        "--from-folder", type=Path, nargs="+", default=[], metavar="DIR", help="folder of pictures, in any usual layout"
    )
    source.add_argument("--mirror", metavar="URL", default=DIV2K_URL, help="where to download from (%(default)s)")
    parser.add_argument("--skip-bad", action="store_true", help="list bad images and go on instead of stopping")
    parser.add_argument(
        "--shard", type=shard, metavar="I/N", help="make the I-th of N parts alone; others may do theirs elsewhere"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads (default: one per core)")
    return parser.parse_args(arguments)


def main() -> None:
    """Prepare the subsets."""
    arguments = parse_args()
    prepare_div2k(
        arguments.root,
        [arguments.subset] if arguments.subset else [*DIV2K],
        arguments.scales,
        from_archives=arguments.from_archives,
        from_folders=arguments.from_folder,
        mirror=arguments.mirror,
        skip_bad=arguments.skip_bad,
        workers=arguments.workers,
        shard=arguments.shard,
    )


if __name__ == "__main__":
    run_command("div2k", main)
