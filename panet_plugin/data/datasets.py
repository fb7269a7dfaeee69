"""The supported data sets, each described once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panet_plugin.data.manifest import Layout

DIV2K_URL = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
# Set5, Set14, B100 and Urban100 with their LR images, as the authors of EDSR packed them.
BENCHMARKS_URL = "https://cv.snu.ac.kr/research/EDSR/benchmark.tar"


@dataclass(frozen=True)
class Archive:
    """The archive of one folder of a set.

    Attributes:
        name: File name, on the server and on disk.
        size: Bytes.
        sha256: In hexadecimal.
        folder: Destination of its images, relative to the root.
        count: Number of images.
    """

    name: str
    size: int
    sha256: str
    folder: str
    count: int


@dataclass(frozen=True)
class Subset:
    """A part of DIV2K, and how it is prepared.

    Attributes:
        layout: Names of the outputs.
        archives: Archive of every scale; 1 is HR.
        subimage: Side and step of sub-images, as in BasicSR.
        crop: Side of the center crop that is kept.
    """

    layout: Layout
    archives: Mapping[int, Archive]
    subimage: tuple[int, int] | None = None
    crop: int | None = None


def _archives(layout: Layout, count: int, files: Mapping[int, tuple[int, str]]) -> dict[int, Archive]:
    return {
        scale: Archive(
            f"{layout.hr}.zip" if scale == 1 else f"{layout.lr_root}_X{scale}.zip",
            size,
            sha256,
            layout.hr if scale == 1 else layout.lr(scale),
            count,
        )
        for scale, (size, sha256) in files.items()
    }


_TRAIN, _VALID = Layout("DIV2K_train", subimages=True), Layout("DIV2K_valid")

# Sizes and SHA-256 are those that TensorFlow Datasets publishes (tensorflow_datasets/datasets/div2k/checksums.tsv,
# revision 64fa546); the authors of DIV2K publish none.
DIV2K: dict[str, Subset] = {
    "train": Subset(
        _TRAIN,
        _archives(
            _TRAIN,
            800,
            {
                1: (3530603713, "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335"),
                2: (925390592, "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850"),
                3: (427847282, "ad5c8e5507e2765823d3c2c5bd0934842efcd487c5370604c224090898b3163a"),
                4: (246914039, "f006b837f4eb52b82909aa01478e6d6d199eefce932179491d0c9dbb706dde3a"),
            },
        ),
        subimage=(480, 240),
    ),
    "valid": Subset(
        _VALID,
        _archives(
            _VALID,
            100,
            {
                1: (448993893, "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"),
                2: (117763600, "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57"),
                3: (54513392, "04b9a2ed3b4a0715d3924d3ae8514830c3328fac8d30512ce716d6f419e052a3"),
                4: (31505881, "a50a5d1c4b88de4e8d300d8fb2b904c52fe93b2b298a4899697760d7cbb6d553"),
            },
        ),
        # The time of attention grows with the square of the pixels: whole 2K images would take longer than the
        # training between two validations.
        crop=240,
    ),
}


@dataclass(frozen=True)
class Benchmark:
    """A set of clean images on which results are published.

    Attributes:
        count: Number of images.
        tasks: Tasks that it is degraded for (panet_plugin.tasks), with the parameters that all settings share.
        aliases: Other names of its folder, case-insensitive.
    """

    count: int
    tasks: Mapping[str, Mapping[str, Any]]
    aliases: tuple[str, ...] = ()


_SR: dict[str, dict[str, Any]] = {"super_resolution": {}}
# The paper's tables are of color images.
_RGB: dict[str, dict[str, Any]] = {"denoising": {"gray": False}, "demosaicing": {}}
_JPEG: dict[str, dict[str, Any]] = {"artifact_reduction": {}}

BENCHMARKS: dict[str, Benchmark] = {
    "Set5": Benchmark(5, _SR),
    "Set14": Benchmark(14, _SR),
    "B100": Benchmark(100, _SR, ("BSD100", "BSDS100")),
    "Urban100": Benchmark(100, _SR | _RGB),
    "Manga109": Benchmark(109, _SR),
    "McMaster18": Benchmark(18, {"demosaicing": {}}, ("McMaster", "McM")),
    "Kodak24": Benchmark(24, _RGB, ("Kodak",)),
    "CBSD68": Benchmark(68, _RGB, ("CBSD68-dataset",)),
    "LIVE1": Benchmark(29, _JPEG, ("LIVE",)),
    "classic5": Benchmark(5, _JPEG),
}
