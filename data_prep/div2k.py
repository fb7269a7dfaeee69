r"""Prepare DIV2K, or other images in its place, for training and validation with BasicSR and MMagic.

  python data_prep/div2k.py --out data/DIV2K                             download, verify, unpack and prepare all
  python data_prep/div2k.py --out data/DIV2K --scale 2 --subset train    only a part
  python data_prep/div2k.py --out data/DIV2K --scale                     HR only, for denoising and the like
  python data_prep/div2k.py --out data/DIV2K --from-archives DOWNLOADS   use downloaded archives
  python data_prep/div2k.py --out data/DF2K --from-folder DF2K --subset train
                                                            unpacked DIV2K, Flickr2K, DF2K or any folder of images
  python data_prep/div2k.py --out data/DF2K --from-folder DIV2K Flickr2K combine several folders

Written to OUT, where the configs read it (set DIV2K_ROOT=OUT if it is not data/DIV2K):

  DIV2K_train_HR_sub.lmdb, DIV2K_train_LR_bicubic_X{2,3,4}_sub.lmdb    sub-images of 480x480 pixels every 240
  DIV2K_valid_HR.lmdb, DIV2K_valid_LR_bicubic_X{2,3,4}.lmdb            the middle 240x240 pixels
  DIV2K_train.json, DIV2K_valid.json                                   counts and hashes, for data_prep/verify.py
  archives/, DIV2K_{train,valid}_HR/, DIV2K_{train,valid}_LR_bicubic/  downloaded and unpacked files

Missing LR images are made by MATLAB's bicubic. Run the same command again to continue after an interruption; complete
sets are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from panet_plugin.data.command import run_command, shard
from panet_plugin.data.datasets import DIV2K, DIV2K_URL
from panet_plugin.data.div2k import prepare_div2k
from panet_plugin.former_options import add_renamed_option


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/DIV2K"), help="folder for the set; default: %(default)s")
    parser.add_argument(
        "--scale", type=int, nargs="*", default=[2, 3, 4], help="scales, or none for HR only; default: 2 3 4"
    )
    parser.add_argument("--subset", choices=[*DIV2K], help="only this subset; default: all")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--from-archives", type=Path, metavar="DIR", help="folder of downloaded archives")
    source.add_argument(
        "--from-folder", type=Path, nargs="+", default=[], metavar="DIR", help="folder of images, in any usual layout"
    )
    source.add_argument(
        "--mirror", metavar="URL", default=DIV2K_URL, help="server to download from; default: %(default)s"
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip and list bad images instead of stopping")
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="make only part I of N; other machines may make the others at the same time",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads; default: one per core")
    add_renamed_option(parser, "--root", "--out")
    add_renamed_option(parser, "--scales", "--scale")
    return parser.parse_args(arguments)


def main() -> None:
    """Prepare the subsets."""
    arguments = parse_args()
    prepare_div2k(
        arguments.out,
        [arguments.subset] if arguments.subset else [*DIV2K],
        arguments.scale,
        from_archives=arguments.from_archives,
        from_folders=arguments.from_folder,
        mirror=arguments.mirror,
        skip_bad=arguments.skip_bad,
        workers=arguments.workers,
        shard=arguments.shard,
    )


if __name__ == "__main__":
    run_command("div2k", main)
