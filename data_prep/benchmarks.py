r"""Prepare the benchmark sets of the paper's tables, with all their degraded versions.

  python data_prep/benchmarks.py DOWNLOADS/benchmark DOWNLOADS/kodak.zip      from folders and archives
  python data_prep/benchmarks.py --download --sets Set5 Set14 B100 Urban100   from the archive of EDSR's authors

Set5, Set14, B100, Urban100, Manga109, McMaster18, Kodak24, CBSD68, LIVE1 and classic5 are searched for in folders with
these names, in the usual layouts (SET/HR, SET/GT, SET/original, SET/*.png, ...). Missing sets are listed; with --sets,
a missing set is an error. Written to OUT:

  SET/HR/NAME.png                                                the clean images
  SET/LR_bicubic/X2/NAMEx2.png                                   super-resolution (X2, X3, X4)
  SET/denoising/s10/NAME.png                                     Gaussian noise (s10, s30, s50, s70)
  SET/demosaicing/NAME.png                                       Bayer mosaic
  SET/artifact_reduction/q10/NAME.png                            JPEG, luma (q10, q20, q30, q40)
  SET.json                                                       counts and hashes, for data_prep/verify.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from panet_plugin.data.benchmarks import prepare_benchmarks
from panet_plugin.data.command import run_command
from panet_plugin.data.datasets import BENCHMARKS, BENCHMARKS_URL
from panet_plugin.data.download import ARCHIVES, download_archive, file_name
from panet_plugin.former_options import add_renamed_option


def main() -> None:
    """Prepare the sets that are found, and list the missing ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="*", metavar="PATH", help="folder or archive that holds sets")
    parser.add_argument(
        "--out", type=Path, default=Path("data/benchmarks"), help="folder for the sets; default: %(default)s"
    )
    parser.add_argument(
        "--sets", nargs="+", choices=[*BENCHMARKS], metavar="SET", help="only these sets; a missing one is an error"
    )
    parser.add_argument(
        "--download",
        nargs="?",
        const=BENCHMARKS_URL,
        metavar="URL",
        help="download an archive of sets; default: %(const)s",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of threads; default: one per core")
    add_renamed_option(parser, "--root", "--out")
    arguments = parser.parse_args()
    sources = arguments.sources
    if arguments.download:
        archive = arguments.out / ARCHIVES / file_name(arguments.download)
        download_archive(arguments.download, archive)
        sources = [*sources, archive]
    if not sources:
        parser.error("no source: pass folders or archives, or --download")
    wanted = arguments.sets or [*BENCHMARKS]
    missing = prepare_benchmarks(arguments.out, sources, wanted, workers=arguments.workers)
    if missing and (arguments.sets or len(missing) == len(wanted)):
        sys.exit(f"benchmarks: not prepared: {', '.join(missing)}")


if __name__ == "__main__":
    run_command("benchmarks", main)
