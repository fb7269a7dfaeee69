"""Compare data preparation with BasicSR's, and reading from LMDBs with reading from folders.

BasicSR's scripts/data_preparation is not installed with it: its extract_subimages.py (read with OpenCV, crop, write PNG
at compression 3, in a pool of processes) is reimplemented here, and its own make_lmdb_from_imgs packs the results. Both
start from the same HR and LR files and produce LMDBs of the same sub-images, which is checked. They run alternately,
each in its own process.

  python tools/benchmark_data.py --images DIR                         speed of preparation and of reading
  python tools/benchmark_data.py --images DIR --growth 10 20 40 80  memory and disk for N images of 2040x1356
  python tools/benchmark_data.py --images DIR --loading CONFIG...     patches per second that one core loads in training
  python tools/benchmark_data.py --images DIR --shards 8              100,000 small images: one LMDB, shards, a folder

The large images are assembled from pieces of the images and prepared like DIV2K, including LR images.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
from tqdm import tqdm

from panet_plugin.data import CleanImages, Layout, Shard, prepare_set, read_image, sequential_order, write_image
from panet_plugin.data.image_reader import list_images
from panet_plugin.data.images import encode_image
from panet_plugin.files import write_bytes

LAYOUT = Layout("bench", subimages=True)
# DIV2K's usual size.
LARGE = (1356, 2040)


def main() -> None:
    """Measure, print and optionally write a report."""
    options = parse_arguments()
    report: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"}
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        root = Path(folder)
        if options.loading:
            report["loading"] = measure_loading(root, options)
        elif options.shards:
            report["shards"] = measure_shards(root, options)
        elif options.growth:
            report["growth"] = measure_growth(root, options)
        else:
            print("preparing the common input, and folders to read")
            prepare_set(
                options.images,
                root,
                LAYOUT.name,
                scales=options.scale,
                subimage=options.subimage,
                folders=True,
                workers=options.workers,
            )
            report["preparation"] = compare_preparation(root, options)
            print(json.dumps(report["preparation"]))
            report["reading"] = compare_reading(root, options)
    print(json.dumps(report, indent=1))
    if options.out:
        write_bytes(options.out, json.dumps(report, indent=1).encode())


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images, such as BSDS400")
    parser.add_argument("--scale", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--subimage", type=int, nargs=2, default=(240, 120), metavar=("SIZE", "STEP"))
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes, or threads; default: one per core"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; default: %(default)s")
    parser.add_argument("--growth", type=int, nargs="+", metavar="N", help="measure memory and disk for N large images")
    parser.add_argument(
        "--loading", type=Path, nargs="+", metavar="CONFIG", help="measure the loading of these MMEngine configs"
    )
    parser.add_argument("--shards", type=int, metavar="N", help="compare N shards with one LMDB and a folder")
    parser.add_argument("--small", type=int, default=100_000, help="number of images of that set; default: %(default)s")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="folder for temporary files")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the results to this file")
    return parser.parse_args()


# Preparation


def compare_preparation(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of both ways, from the folders of whole images to LMDBs of sub-images."""
    ways = {"basicsr": prepare_as_basicsr, "panet_plugin": prepare_as_we_do}
    measured: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, prepare in ways.items():
            out = root / way
            shutil.rmtree(out, ignore_errors=True)
            measured[way].append(in_process(prepare, root, out, options))
    check_same_images(*(root / way for way in ways), options.scale)
    result: dict[str, Any] = {
        way: {
            "seconds": [round(seconds, 2) for seconds, _, _ in runs],
            # More meaningful on a busy machine.
            "processor_seconds": [round(seconds, 2) for _, _, seconds in runs],
            "peak_MB": round(max(memory for _, memory, _ in runs)),
        }
        for way, runs in measured.items()
    }
    for name, column in (("times_faster", 0), ("times_less_processor", 2)):
        medians = [statistics.median(run[column] for run in runs) for runs in measured.values()]
        result[name] = round(medians[0] / medians[1], 2)
    return result


def prepare_as_we_do(root: Path, out: Path, options: argparse.Namespace) -> float:
    """Prepare the LMDBs in one pass; return the seconds."""
    start = time.perf_counter()
    prepare_set(
        root / LAYOUT.hr,
        out,
        LAYOUT.name,
        scales=options.scale,
        lr_dir=root / LAYOUT.lr_root,
        subimage=options.subimage,
        workers=options.workers,
    )
    return time.perf_counter() - start


def prepare_as_basicsr(root: Path, out: Path, options: argparse.Namespace) -> float:
    """Write sub-images to folders, then LMDBs, for HR and every scale in turn; return the seconds."""
    from panet_plugin.frameworks.compat import enable_basicsr

    enable_basicsr()
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    start = time.perf_counter()
    size, step = options.subimage
    for scale in (1, *options.scale):
        source = root / (LAYOUT.hr if scale == 1 else LAYOUT.lr(scale))
        target = out / (LAYOUT.hr_sub if scale == 1 else LAYOUT.lr_sub(scale))
        target.mkdir(parents=True)
        jobs = [
            (path, target, path.stem.removesuffix(f"x{scale}"), size // scale, step // scale)
            for path in sorted(source.iterdir())
        ]
        with multiprocessing.Pool(options.workers) as pool:
            for _ in tqdm(pool.imap_unordered(extract_as_basicsr, jobs), total=len(jobs)):
                pass
        names = sorted(path.name for path in target.iterdir())
        database = out / (LAYOUT.hr_lmdb if scale == 1 else LAYOUT.lr_lmdb(scale))
        make_lmdb_from_imgs(str(target), str(database), names, [name.removesuffix(".png") for name in names])
    return time.perf_counter() - start


def extract_as_basicsr(job: tuple[Path, Path, str, int, int]) -> None:
    """Write the sub-images of one image."""
    path, target, name, size, step = job
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    starts = []
    for side in image.shape[:2]:
        along = np.arange(0, side - size + 1, step)
        if side - (along[-1] + size) > 0:
            along = np.append(along, side - size)
        starts.append(along)
    number = 0
    for top in starts[0]:
        for left in starts[1]:
            number += 1
            window = np.ascontiguousarray(image[top : top + size, left : left + size, ...])
            cv2.imwrite(str(target / f"{name}_s{number:03d}.png"), window, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def check_same_images(theirs: Path, ours: Path, scales: list[int]) -> None:
    """Exit unless both contain the same pixels under the same keys."""

    def images(path: Path) -> dict[bytes, bytes]:
        with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
            return {
                key: cv2.imdecode(np.frombuffer(value, np.uint8), cv2.IMREAD_UNCHANGED).tobytes()
                for key, value in transaction.cursor()
            }

    for path in LAYOUT.lmdbs(scales):
        if images(theirs / path) != images(ours / path):
            raise SystemExit(f"{path}: the images differ")


# Reading


def compare_reading(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per epoch of BasicSR's dataset on sub-images in LMDBs, in files, and on whole images in files."""
    scale = options.scale[0]
    places = {
        "lmdb": (LAYOUT.hr_lmdb, LAYOUT.lr_lmdb(scale), "lmdb", "{}"),
        "files": (LAYOUT.hr_sub, LAYOUT.lr_sub(scale), "disk", "{}"),
        "whole_images": (LAYOUT.hr, LAYOUT.lr(scale), "disk", f"{{}}x{scale}"),
    }
    samples = sum(1 for _ in (root / LAYOUT.hr_sub).iterdir())
    seconds: dict[str, list[float]] = {place: [] for place in places}
    for _ in range(options.rounds):
        for place, where in places.items():
            seconds[place].append(in_process(read_epoch, root, where, samples, scale, options)[0])
    return {
        "samples": samples,
        "seconds_per_epoch": {place: [round(s, 2) for s in runs] for place, runs in seconds.items()},
    }


def read_epoch(
    root: Path, where: tuple[str, str, str, str], samples: int, scale: int, options: argparse.Namespace
) -> float:
    """Draw as many patches of 48x48 as there are sub-images; return the seconds, without starting the workers."""
    from panet_plugin.frameworks.compat import enable_basicsr

    enable_basicsr()
    from basicsr.data.paired_image_dataset import PairedImageDataset
    from torch.utils.data import DataLoader, RandomSampler

    gt, lq, backend, template = where
    dataset = PairedImageDataset(
        {
            "dataroot_gt": str(root / gt),
            "dataroot_lq": str(root / lq),
            "io_backend": {"type": backend},
            "filename_tmpl": template,
            "phase": "train",
            "scale": scale,
            "gt_size": 48 * scale,
            "use_hflip": True,
            "use_rot": True,
        }
    )
    sampler = RandomSampler(dataset, replacement=True, num_samples=samples)
    batches = iter(DataLoader(dataset, batch_size=16, sampler=sampler, num_workers=options.workers))
    next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


# Memory and disk


def measure_growth(root: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the preparation of different numbers of large images, each in its own process."""
    write_large_images(options.images, root / "large", max(options.growth))
    return [
        {"images": number, **measured, "processor_seconds": round(processor, 1), "peak_MB": round(memory)}
        for number in options.growth
        for measured, memory, processor in [in_process(prepare_large, root / "large", root / "out", number, options)]
    ]


def write_large_images(images: Path, folder: Path, number: int) -> None:
    """Assemble large images from random pieces of images, without resizing."""
    random = np.random.default_rng(0)
    paths = list_images(images)
    for name in tqdm(range(number), "assembling images"):
        whole, side = np.zeros((*LARGE, 3), np.uint8), 240
        for top in range(0, LARGE[0], side):
            for left in range(0, LARGE[1], side):
                image = read_image(paths[random.integers(len(paths))])
                space = whole[top : top + side, left : left + side]
                y, x = (random.integers(max(a - b, 0) + 1) for a, b in zip(image.shape[:2], space.shape, strict=False))
                piece = image[y : y + side, x : x + side][: space.shape[0], : space.shape[1]]
                space[: piece.shape[0], : piece.shape[1]] = piece
        write_image(folder / f"{name + 1:04d}.png", whole)


def prepare_large(images: Path, out: Path, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare some of the images; return the seconds, and the disk space in GB at its peak and at the end."""

    def used() -> int:
        total = 0
        for path in out.rglob("*"):
            # Files may be moved meanwhile.
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
        return total

    def watch() -> None:
        while not done.wait(0.2):
            peaks.append(used())

    peaks, done, watcher = [0], threading.Event(), threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    names = {f"{name + 1:04d}" for name in range(number)}
    prepare_set(images, out, LAYOUT.name, names=names, scales=options.scale, workers=options.workers)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    left = used()
    shutil.rmtree(out)
    return {"seconds": round(seconds, 1), "peak_GB": round(max(*peaks, left) / 1e9, 3), "left_GB": round(left / 1e9, 3)}


# Loading


def measure_loading(root: Path, options: argparse.Namespace) -> dict[str, list[int]]:
    """Measure the patches per second that one core loads, per round and config, from images as large as DIV2K's."""
    write_large_images(options.images, root / "large", 10)
    layout = Layout("DIV2K_train", subimages=True)
    prepare_set(root / "large", root, layout.name, scales=options.scale, subimage=(480, 240), workers=options.workers)
    os.environ["DIV2K_ROOT"] = str(root)
    rates: dict[str, list[int]] = {config.stem: [] for config in options.loading}
    for _ in range(options.rounds):
        for config in options.loading:
            rates[config.stem].append(round(in_process(load, config)[0]))
    return rates


def load(config: Path) -> float:
    """Return the patches of a config's training data that one thread loads per second of processor time."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import DATASETS, init_default_scope

    torch.set_num_threads(1)
    settings = Config.fromfile(config)
    init_default_scope("mmagic")
    dataset = DATASETS.build(settings.train_dataloader.dataset)
    random, number = np.random.default_rng(0), 2000
    order = random.permuted(np.resize(np.arange(len(dataset)), number + 200))
    # Some first, to fill the process's caches.
    for index in order[:200]:
        dataset[int(index)]
    start = time.process_time()
    for index in order[200:]:
        dataset[int(index)]
    return number / (time.process_time() - start)


# Shards


def measure_shards(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare many small images as one LMDB and in shards; read all from these and from their folder, alternately."""
    # In its own process, since later ones would include its memory.
    in_process(write_small_images, options.images, root / "small", options.small)
    whole = in_process(prepare_small, root, "one", None)
    shards = [in_process(prepare_small, root, "shards", Shard(n, options.shards)) for n in range(1, options.shards + 1)]
    ways = {
        "folder": ("small", None),
        "one LMDB": ("one/small_HR.lmdb", None),
        "shards": ("shards/small_HR.lmdb", None),
        "shards in sequence": ("shards/small_HR.lmdb", 1000),
    }
    read: dict[str, list[Any]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way, (place, buffer) in ways.items():
            read[way].append(in_process(read_all, root / place, buffer))

    def columns(runs: list[Any]) -> dict[str, list[float]]:
        return {
            "seconds": [round(result["seconds"], 1) for result, _, _ in runs],
            "processor_seconds": [round(processor, 1) for _, _, processor in runs],
            "peak_MB": [round(memory) for _, memory, _ in runs],
        }

    return {
        "preparation": {"one LMDB": columns([whole]), "each shard": columns(shards)},
        "reading": {
            way: {**columns(runs), "MB_after_a_quarter": [round(result["quarter"]) for result, _, _ in runs]}
            for way, runs in read.items()
        },
    }


def write_small_images(images: Path, folder: Path, number: int) -> None:
    """Write random crops of 64x64."""
    folder.mkdir()
    random, side = np.random.default_rng(0), 64
    wholes = [read_image(path) for path in list_images(images)]
    for name in tqdm(range(number), "cropping images"):
        whole = wholes[random.integers(len(wholes))]
        top, left = (random.integers(length - side + 1) for length in whole.shape[:2])
        content = encode_image(whole[top : top + side, left : left + side])
        (folder / f"{name:06d}.png").write_bytes(content)


def prepare_small(root: Path, name: str, shard: Shard | None) -> dict[str, float]:
    """Prepare the small images, or a shard of them, in one thread."""
    start = time.perf_counter()
    prepare_set(root / "small", root / name, "small", scales=(), subimage=None, workers=1, shard=shard)
    return {"seconds": time.perf_counter() - start}


def read_all(place: Path, buffer: int | None) -> dict[str, float]:
    """Decode every image once, in random or sequential order, from files that are not in memory."""
    for path in place.rglob("*.*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    random, quarter = np.random.default_rng(0), 0.0
    start = time.perf_counter()
    images = CleanImages(place)
    number = len(images)
    order = sequential_order(images.shards, buffer, random) if buffer else random.permutation(number)
    for count, index in enumerate(order):
        if count == number // 4:
            quarter = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        images.read(images.names[index])
    return {"seconds": time.perf_counter() - start, "quarter": quarter}


def in_process(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Run a function in a new process; return its result, its peak memory in MB and its processor time in seconds."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, function, arguments))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def _measured(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    # The default on Linux; a spawned process would pass on its own start method to pools and loaders.
    multiprocessing.set_start_method("fork", force=True)
    cv2.setNumThreads(1)
    result = function(*arguments)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    sender.send((result, usage[0].ru_maxrss / 1024, sum(each.ru_utime + each.ru_stime for each in usage)))


if __name__ == "__main__":
    main()
