"""Compare the implementations of pyramid attention with the dense, original-style one: time, memory, whole network."""

import argparse
import io
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from panet_plugin.archs import PANet
from panet_plugin.files import write_bytes
from panet_plugin.memory import high_water_mark
from panet_plugin.ops import fused, pyramid_attention
from panet_plugin.ops.pyramid import ladder, level_size

#: The published block: embeddings of 32 and 64 channels, five levels.
KEY_CHANNELS, VALUE_CHANNELS, SCALES = 32, 64, ladder(5)
BASELINE, OTHERS = "dense", ("sdpa", "stream", "fused", "fused-bf16", "triton")
#: Sides of the maps on which the window is compared with none, and of those over which its time per pixel is compared.
WINDOWED_SIDES, GROWTH_SIDES = (256, 512), (128, 256, 512, 1024)
#: What stores all scores needs some 10 GB at 128: its memory grows with the fourth power of the side.
STORING, LARGEST_STORING_SIDE = ("dense", "sdpa"), 128
PLOT_SIDES = 24, 32, 48, 64, 96, 128, 192


def main() -> None:
    """Measure what the command line asks for, print it and write it down."""
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    if options.peak_memory:
        implementation, training, side, window = [*options.peak_memory, "0"][:4]
        print(grown_memory(implementation, training == "training", int(side), options.device, int(window) or None))
        return

    implementations = [name for name in OTHERS if not why_not(name, options.device)]
    skipped = {name: reason for name in OTHERS if (reason := why_not(name, options.device))}
    report = {"machine": describe(options), "skipped": skipped, "time": [], "memory": [], "exponent": [], "window": []}
    print(report["machine"])
    for name, reason in skipped.items():
        print(f"{name}: skipped, {reason}")

    print(f"\nMedian seconds of alternating runs, and how many times faster than {BASELINE}")
    cases = [(1, side, False) for side in options.sizes] + [(*case, True) for case in options.training]
    for batch, side, training in cases:
        steps = {
            name: attention_step(name, batch, side, training, options.device) for name in (BASELINE, *implementations)
        }
        title = f"{'forward + backward' if training else 'forward'} {side}x{side} N={batch}"
        report["time"].append(compare(title, steps, options))
    if options.blocks:
        title = f"PANet, {options.blocks} blocks, forward + backward 48x48 N=4"
        steps = {name: network_step(name, options.blocks, options.device) for name in (BASELINE, *implementations)}
        report["time"].append(compare(title, steps, options))

    print(f"\nPeak memory above the inputs in MB, fresh processes, and what fraction of {BASELINE}'s")
    for training in (False, True):
        report["memory"].append(compare_memory((BASELINE, *implementations), training, options.memory_size, options))
    linear = [name for name in implementations if name not in STORING]
    if all(options.exponent):
        first, last = options.exponent
        print(f"\nMemory of the forward pass from {first}x{first} to {last}x{last}, as a power of the pixels")
        report["exponent"] = [fit_exponent(name, options.exponent, options) for name in linear]

    if options.window:
        print(f"\nForward pass with a window of {options.window}x{options.window} pixels, of one run each")
        report["window"] = [compare_window(name, options) for name in linear]

    if options.out:
        write_bytes(options.out, (json.dumps(report, indent=2) + "\n").encode())
    if options.plot:
        plot((BASELINE, *implementations), options)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[48, 96, 128], help="sides of the forward passes")
    parser.add_argument(
        "--training",
        type=batch_and_side,
        nargs="*",
        default=[(4, 48), (1, 96)],
        metavar="NxSIDE",
        help="batches and sides of the forward and backward passes",
    )
    parser.add_argument("--blocks", type=int, default=80, help="residual blocks of the whole network; 0 leaves it out")
    parser.add_argument("--memory-size", type=int, default=96, help="side whose peak memory is compared")
    parser.add_argument(
        "--exponent",
        type=int,
        nargs=2,
        default=[96, 256],
        help="two sides to fit the growth of memory to; 0 0 leaves it out",
    )
    parser.add_argument(
        "--window", type=int, default=48, metavar="N", help="side of the window that is compared; 0 leaves it out"
    )
    parser.add_argument(
        "--longest",
        type=float,
        default=900,
        metavar="SECONDS",
        help="a run without the window that would take longer is extrapolated from the smaller map instead",
    )
    parser.add_argument("--seconds", type=float, default=8, help="time to spend on each implementation in each case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the figures to this JSON file")
    parser.add_argument("--plot", type=Path, help="also draw time and memory over the size to this file")
    parser.add_argument("--peak-memory", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def batch_and_side(text: str) -> tuple[int, int]:
    """Parse ``4x48``."""
    batch, side = text.split("x")
    return int(batch), int(side)


def why_not(implementation: str, device: str) -> str | None:
    """Return why an implementation cannot run here, if so."""
    if implementation.startswith("fused") and device != "cpu":
        return "it runs on CPUs"
    if implementation.startswith("fused") and not fused.is_available():
        return "no C++ compiler that can build it"
    if implementation == "fused-bf16" and not fused.has_bfloat16():
        return "the processor does not multiply bfloat16"
    if implementation == "triton" and device != "cuda":
        return "it needs --device cuda"
    return None


def describe(options: argparse.Namespace) -> str:
    """Name the machine and the versions."""
    if options.device == "cuda":
        hardware = torch.cuda.get_device_name()
    else:
        hardware = f"{processor()}, {options.threads} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{hardware}; PyTorch {torch.__version__}, Python {platform.python_version()}"


def processor() -> str:
    """Name the CPU."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()


def make_inputs(batch: int, side: int, training: bool, device: str) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Draw a query, keys and values."""
    generator = torch.Generator().manual_seed(0)
    sides = [level_size(side, side, scale) for scale in SCALES]

    def draw(channels: int, size: tuple[int, int]) -> Tensor:
        return torch.randn(batch, channels, *size, generator=generator).to(device).requires_grad_(training)

    query = draw(KEY_CHANNELS, (side, side))
    return query, [draw(KEY_CHANNELS, size) for size in sides], [draw(VALUE_CHANNELS, size) for size in sides]


def select(implementation: str) -> str:
    """Set the precision of products that a name asks for and return the rest of the name."""
    name, _, bfloat16 = implementation.partition("-")
    torch.set_float32_matmul_precision("medium" if bfloat16 else "highest")
    return name


def attention_step(
    implementation: str, batch: int, side: int, training: bool, device: str, window: int | None = None
) -> Callable[[], None]:
    """Return one forward pass, or one forward and backward pass, as a function."""
    query, keys, values = make_inputs(batch, side, training, device)

    def step() -> None:
        output = pyramid_attention(query, keys, values, implementation=select(implementation), window=window)
        if training:
            torch.autograd.grad(output.sum(), [query, *keys, *values])
        synchronize(device)

    return step


def network_step(implementation: str, blocks: int, device: str) -> Callable[[], None]:
    """Return one forward and backward pass of a whole network as a function."""
    torch.manual_seed(0)
    network = PANet(num_blocks=blocks, attention={"implementation": select(implementation)}).to(device)
    images = torch.rand(4, 3, 48, 48, device=device)

    def step() -> None:
        select(implementation)
        network.zero_grad()
        (network(images) - images).abs().mean().backward()
        synchronize(device)

    return step


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def compare(title: str, steps: dict[str, Callable[[], None]], options: argparse.Namespace) -> dict:
    """Time all steps in turn, again and again, and print and return what they took."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    baseline = time_once(steps[BASELINE])  # also the warm-up
    for name in steps:
        if name != BASELINE:
            time_once(steps[name])
    for _ in range(max(2, min(15, round(options.seconds / baseline)))):
        for name, step in steps.items():
            seconds[name].append(time_once(step))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    # Each ratio is of neighbors in time, which other load on the machine slows down alike.
    faster = {
        name: statistics.median(a / b for a, b in zip(seconds[BASELINE], values, strict=True))
        for name, values in seconds.items()
    }
    row("", title, {name: f"{medians[name]:.3f} ({faster[name]:.1f}x)" for name in steps})
    return {"case": title, "runs": len(seconds[BASELINE]), "seconds": medians, "times_faster": faster}


def time_once(step: Callable[[], None]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def row(indent: str, title: str, cells: dict[str, str]) -> None:
    """Print one line of a table."""
    print(f"{indent}{title:54}" + "".join(f"{name} {cell:18}" for name, cell in cells.items()), flush=True)


def compare_memory(names: tuple[str, ...], training: bool, side: int, options: argparse.Namespace) -> dict:
    """Print and return the peak memory of one pass."""
    megabytes = {name: peak_memory(name, training, side, options) for name in names}
    title = f"{'forward + backward' if training else 'forward'} {side}x{side}"
    row("", title, {n: f"{m:.0f} (1/{megabytes[BASELINE] / m:.0f})" for n, m in megabytes.items()})
    return {"case": title, "megabytes": megabytes}


def fit_exponent(name: str, sides: list[int], options: argparse.Namespace) -> dict:
    """Print and return how the memory of a forward pass grows."""
    small, large = (peak_memory(name, False, side, options) for side in sides)
    exponent = math.log(large / small) / math.log((sides[1] / sides[0]) ** 2)
    row("", f"{name}: {small:.0f} to {large:.0f} MB", {"": f"{exponent:.2f}"})
    return {"implementation": name, "sides": sides, "megabytes": [small, large], "exponent": exponent}


def compare_window(name: str, options: argparse.Namespace) -> dict:
    """Print and return what a window does to the time and memory of one implementation."""
    attention_step(name, 1, 16, False, options.device, options.window)()  # loads libraries, starts threads
    windowed, whole = {}, {}
    cells, seconds = {}, 0.0
    for side in GROWTH_SIDES:
        windowed[side] = time_once(attention_step(name, 1, side, False, options.device, options.window))
    for side in WINDOWED_SIDES:
        # Without the window time grows with the square of the pixels.
        expected = seconds * (side / WINDOWED_SIDES[0]) ** 4
        measured = expected <= options.longest
        whole[side] = time_once(attention_step(name, 1, side, False, options.device)) if measured else expected
        seconds = seconds or whole[side]
        words = "" if measured else ", extrapolated"
        cells[f"{side}x{side}"] = f"{whole[side] / windowed[side]:.1f}x (from {whole[side]:.1f} s{words})"
    row("", f"{name}: times faster than without", cells)
    per_pixel = {side: taken / side**2 * 1e6 for side, taken in windowed.items()}
    row("", f"{name}: microseconds per pixel", {str(side): f"{taken:.1f}" for side, taken in per_pixel.items()})
    megabytes = {side: peak_memory(name, False, side, options, options.window) for side in GROWTH_SIDES}
    row("", f"{name}: peak memory in MB", {str(side): f"{amount:.0f}" for side, amount in megabytes.items()})
    return {
        "implementation": name,
        "window": options.window,
        "seconds": windowed,
        "seconds_without": whole,
        "extrapolated": [side for side in WINDOWED_SIDES if "extrapolated" in cells[f"{side}x{side}"]],
        "megabytes": megabytes,
    }


def peak_memory(
    implementation: str, training: bool, side: int, options: argparse.Namespace, window: int | None = None
) -> float:
    """Return the peak memory of one pass above its inputs, in MB, measured in a process of its own."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--device", options.device]
    command += ["--peak-memory", implementation, "training" if training else "forward", str(side)]
    command.append(str(window or 0))
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(result.stdout.split()[-1])


def grown_memory(implementation: str, training: bool, side: int, device: str, window: int | None) -> float:
    """Run one pass and return how far it raised this process's peak memory, in MB."""
    attention_step(implementation, 1, 10, training, device)()  # loads libraries, starts threads
    step = attention_step(implementation, 1, side, training, device, window)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = high_water_mark()
    step()
    return (high_water_mark() - before) / 2**20


def plot(names: tuple[str, ...], options: argparse.Namespace) -> None:
    """Draw time and memory of the forward pass over the number of pixels."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name in names:
        sides = [side for side in PLOT_SIDES if name not in STORING or side <= LARGEST_STORING_SIDE]
        seconds, megabytes = [], []
        for side in sides:
            step = attention_step(name, 1, side, False, options.device)
            step()
            seconds.append(min(time_once(step) for _ in range(2 if side > 64 else 5)))
            megabytes.append(peak_memory(name, False, side, options))
        left.loglog(sides, seconds, "o-", label=name)
        right.loglog(sides, megabytes, "o-", label=name)
    for axes, label in ((left, "seconds"), (right, "peak memory above the inputs, MB")):
        axes.set_xticks(PLOT_SIDES, map(str, PLOT_SIDES))
        axes.minorticks_off()
        axes.set(xlabel="side of the feature map, pixels", ylabel=label)
        axes.grid(alpha=0.3)
    left.legend()
    figure.suptitle(f"Forward pass, 64 channels, 5 levels\n{describe(options)}", fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format=options.plot.suffix[1:] or "png", dpi=110)
    write_bytes(options.plot, image.getvalue())


if __name__ == "__main__":
    main()
