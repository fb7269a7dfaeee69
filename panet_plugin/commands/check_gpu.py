"""Check pyramid attention on a GPU: what every implementation computes, how fast, in how much memory; eight minutes.

Writes NAME.json and NAME.md after every step, so that what was found is there however the check ends. Needs PyTorch
alone, and Triton for the kernels.
"""

import argparse
import functools
import gc
import json
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from panet_plugin.archs import PAEDSR, PANet, attention_window
from panet_plugin.files import write_bytes
from panet_plugin.ops import pyramid_attention
from panet_plugin.ops.backends import BACKENDS
from panet_plugin.ops.problem import Problem
from panet_plugin.ops.pyramid import key_scale, ladder, level_size

#: Channels that the published block matches and pastes, and its levels.
CHANNELS, DEPTH, SCALES = 32, 64, ladder(5)
#: Largest error allowed, as a root mean square relative to that of the exact result, by the precision of products.
TOLERANCES = {"ieee": 2e-5, "tf32": 1e-2, "bf16": 5e-2}
#: A case that is expected to take longer, from one of fewer scores, is left out.
LONGEST_RUN = 8.0
#: Seconds in which a case is timed again and again, and most runs.
TIMED, RUNS = 0.6, 5

Row = dict[str, Any]


class Clock:
    """The time that is left to a part of the check."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()


class Check:
    """One run of the check.

    Args:
        device: What to check, ``"cuda"`` or, to try the check itself, ``"cpu"``: with tiny sizes.
        out: Folder of the results.
    """

    def __init__(self, device: str, out: Path) -> None:
        self.device, self.on_gpu = device, device != "cpu"
        hardware = torch.cuda.get_device_name(device) if self.on_gpu else platform.processor() or platform.machine()
        name = re.sub(r"[^A-Za-z0-9]+", "_", hardware).strip("_").lower()
        self._paths = [out / f"{name}.{suffix}" for suffix in ("json", "md")]
        self.report: dict[str, Any] = {"machine": self._describe(hardware), "rows": {name: [] for name in PARTS}}
        #: Seconds per score of the cases that were timed.
        self._rates: dict[tuple, float] = {}

    @property
    def failures(self) -> list[Row]:
        """What is wrong."""
        return [row for rows in self.report["rows"].values() for row in rows if row.get("verdict") == "FAILED"]

    def run(self, parts: Sequence[str], seconds: float) -> None:
        """Run parts of the check, each within its share of all seconds."""
        whole = Clock(seconds)
        share = seconds / sum(PARTS.values())
        for part in parts:
            clock = Clock(min(PARTS[part] * share, whole.left()))
            for case, step in getattr(self, f"_{part}")():
                result = self._attempt(step) if clock.left() > 0 else {"verdict": "skipped: no time left"}
                self.report["rows"][part].append(case | result)
                print(part, *(f"{key}={value}" for key, value in (case | result).items()), flush=True)
                self.write()

    def write(self) -> None:
        """Write what there is so far."""
        for path, text in zip(self._paths, (json.dumps(self.report, indent=1), self.markdown()), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, (text + "\n").encode())

    def markdown(self) -> str:
        """Return the report as a page."""
        lines = [f"# Pyramid attention on {self.report['machine']['device']}", ""]
        lines += [f"- {key}: {value}" for key, value in self.report["machine"].items()]
        for part, rows in self.report["rows"].items():
            keys = list(dict.fromkeys(key for row in rows for key in row))
            lines += ["", f"## {part.capitalize()}", ""]
            if not rows:
                lines.append("Not run.")
                continue
            lines += [f"| {' | '.join(keys)} |", "|" + "---|" * len(keys)]
            lines += ["| " + " | ".join(str(row.get(key, "")).replace("|", "/") for key in keys) + " |" for row in rows]
        return "\n".join(lines)

    def _describe(self, hardware: str) -> Row:
        machine: Row = {"device": hardware, "PyTorch": torch.__version__, "Python": platform.python_version()}
        if self.on_gpu:
            machine["capability"] = ".".join(map(str, torch.cuda.get_device_capability(self.device)))
            machine["memory"] = f"{torch.cuda.get_device_properties(self.device).total_memory / 2**30:.0f} GiB"
            machine["CUDA"] = torch.version.cuda
        for package in ("triton", "numpy"):
            try:
                machine[package] = __import__(package).__version__
            except ImportError:
                machine[package] = "not installed"
        return machine

    def _attempt(self, step: Callable[[], Row]) -> Row:
        try:
            return step()
        except torch.cuda.OutOfMemoryError:
            return {"verdict": "out of memory"}
        except Exception as error:
            return {"verdict": "FAILED", "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        finally:
            set_products("ieee")
            gc.collect()
            if self.on_gpu:
                torch.cuda.empty_cache()

    # The parts: each yields cases, as what they are and what runs them.

    def _correctness(self) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """Outputs and gradients beside dense attention in float64, layouts, and results from run to run."""
        cases: list[Row] = [
            {"size": (9, 7), "batch": 2, "channels": 8, "depth": 16},
            {"size": (9, 11), "batch": 2, "window": 5},
            {"size": (1, 1), "scales": (1.0,)},
            {"size": (1, 9), "scales": (1.0,), "channels": 3, "depth": 5},
        ]
        if self.on_gpu:
            cases += [
                {"size": (48, 48), "batch": 2},
                {"size": (40, 37), "window": 13},
                {"size": (64, 20), "window": 24, "batch": 3},
                {"size": (24, 40), "depth": 256},
                {"size": (31, 33), "channels": 128, "depth": 256},
            ]
        for case in cases:
            exact = self._inputs(**case, dtype=torch.float64)
            expected = self._results("dense", exact, case)
            for name, products in self._ways():
                yield (
                    {"case": text(case), "implementation": name, "products": products},
                    functools.partial(self._compare, name, products, case, expected),
                )

    def _compare(self, name: str, products: str, case: Row, expected: list[Tensor]) -> Row:
        set_products(products)
        inputs = self._inputs(**case)
        found, again = (self._results(name, inputs, case) for _ in range(2))
        query, keys, values = inputs
        strange = (
            torch.stack([query, query], -1)[..., 0].detach().requires_grad_(),
            [key.detach().to(memory_format=torch.channels_last).requires_grad_() for key in keys],
            [value.detach().mT.contiguous().mT.requires_grad_() for value in values],
        )
        other = self._results(name, strange, case)
        errors = [error_of(mine, theirs) for mine, theirs in zip(found, expected, strict=True)]
        layouts = max(error_of(mine, theirs) for mine, theirs in zip(other, found, strict=True))
        right = all(error <= TOLERANCES[products] for error in (*errors, layouts))
        repeatable = all(map(torch.equal, found, again))
        return {
            **{"error": f"{errors[0]:.1e}", "of gradients": f"{max(errors[1:]):.1e}", "of layouts": f"{layouts:.1e}"},
            **{"repeatable": repeatable, "verdict": "right" if right else "FAILED"},
        }

    def _attention(self) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """Time and peak memory of the attention alone."""
        sizes = [(16, 48), (1, 96), (1, 256), (1, 512)] if self.on_gpu else [(1, 8), (1, 12)]
        for batch, side in sizes:
            for window in (None, min(48, side // 2)):
                for training in (False, True):
                    for name, products in self._ways():
                        case: Row = {"batch": batch, "side": side, "window": window, "training": training}
                        yield (
                            case | {"implementation": name, "products": products},
                            functools.partial(self._time_attention, name, products, **case),
                        )

    def _time_attention(
        self, name: str, products: str, batch: int, side: int, window: int | None, training: bool
    ) -> Row:
        # What stores all scores has no use for a window.
        sees = side if window is None or name in ("dense", "sdpa") else window
        scores = batch * (side * sees) ** 2
        kind = (name, products, window is None, training)
        if self._rates.get(kind, 0.0) * scores > LONGEST_RUN:
            return {"verdict": f"left out: some {self._rates[kind] * scores:.0f} s"}
        set_products(products)
        query, keys, values = self._inputs(size=(side, side), batch=batch, training=training)

        def step() -> None:
            output = pyramid_attention(query, keys, values, implementation=name, window=window)
            if training:
                torch.autograd.grad(output.sum(), [query, *keys, *values])

        result = self._time(step)
        self._rates[kind] = result["ms"] / 1e3 / scores
        return result

    def _training(self) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """Training steps of whole networks."""
        makers: dict[str, Callable[..., nn.Module]] = {"PANet": PANet, "PAEDSR": PAEDSR}
        small: Row = {} if self.on_gpu else {"num_blocks": 1, "mid_channels": 8}
        for title, make in makers.items():
            for precision in ("fp32", "tf32", "bf16"):
                for name in ("auto", *self._implementations()):
                    if not self.on_gpu and (precision != "fp32" or name == "auto"):
                        continue
                    yield (
                        {"network": title, "precision": precision, "implementation": name},
                        functools.partial(
                            self._train, make, small | {"attention": {"implementation": name}}, precision
                        ),
                    )

    def _train(self, make: Callable[..., nn.Module], options: Row, precision: str) -> Row:
        network = make(**options).to(self.device)
        optimizer = torch.optim.Adam(network.parameters())
        batch, side = (16, 48) if self.on_gpu else (1, 8)
        images = torch.rand(batch, 3, side, side, device=self.device)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            with self._precision(precision):
                network(images).abs().mean().backward()
            optimizer.step()

        return self._time(step)

    def _images(self) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """Whole images of 1920x1080, with a window of 48 pixels."""
        small: Row = {} if self.on_gpu else {"num_blocks": 1, "mid_channels": 8}
        size = (1080, 1920) if self.on_gpu else (12, 20)
        for precision in ("fp32", "tf32", "bf16"):
            for name in self._implementations():
                # These store all scores.
                if (name in ("dense", "sdpa") and self.on_gpu) or (precision != "fp32" and not self.on_gpu):
                    continue
                yield (
                    {"network": "PANet", "size": text(size), "precision": precision, "implementation": name},
                    functools.partial(self._restore, small | {"attention": {"implementation": name}}, size, precision),
                )

    def _restore(self, options: Row, size: tuple[int, int], precision: str) -> Row:
        network = PANet(**options).to(self.device).eval()
        image = torch.rand(1, 3, *size, device=self.device)

        def step() -> None:
            with torch.inference_mode(), attention_window(network, 48), self._precision(precision):
                network(image)

        return self._time(step)

    def _programs(self) -> Iterator[tuple[Row, Callable[[], Row]]]:
        """CUDA graphs, torch.compile, and deterministic algorithms."""
        if not self.on_gpu:
            return
        for name in self._implementations():
            for window in (None, 9):
                case = {"implementation": name, "window": window}
                if name not in ("dense", "sdpa"):
                    yield {"program": "CUDA graph", **case}, functools.partial(self._graph, name, window)
                yield {"program": "deterministic", **case}, functools.partial(self._deterministic, name, window)
        for name in self._implementations():
            for mode in ("default", "reduce-overhead"):
                case = {"program": f"torch.compile, {mode}", "implementation": name, "window": 9}
                yield case, functools.partial(self._compiled, name, mode)

    def _graph(self, name: str, window: int | None) -> Row:
        inputs = self._inputs(size=(20, 23), batch=2)
        with torch.no_grad():
            for _ in range(2):
                expected = pyramid_attention(*inputs, implementation=name, window=window)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                output = pyramid_attention(*inputs, implementation=name, window=window)
            graph.replay()
            torch.cuda.synchronize()
            return verdict(torch.equal(output, expected))

    def _deterministic(self, name: str, window: int | None) -> Row:
        network = PANet(mid_channels=16, num_blocks=1, attention={"implementation": name, "window": window})
        network.to(self.device)
        images = torch.rand(2, 3, 24, 24, device=self.device)
        torch.use_deterministic_algorithms(True)
        try:
            results = [torch.autograd.grad(network(images).sum(), list(network.parameters())) for _ in range(2)]
        finally:
            torch.use_deterministic_algorithms(False)
        return verdict(all(map(torch.equal, *results)))

    def _compiled(self, name: str, mode: str) -> Row:
        torch._dynamo.reset()

        def function(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
            return pyramid_attention(query * 2, keys, values, implementation=name, window=9) + 1

        query, keys, values = self._inputs(size=(20, 23), batch=2)
        compiled = torch.compile(function, fullgraph=True, mode=mode)
        for _ in range(3):
            output = compiled(query, keys, values)
            found = [output.detach().clone(), *torch.autograd.grad(output.sum(), [query, *keys, *values])]
        output = function(query, keys, values)
        expected = [output, *torch.autograd.grad(output.sum(), [query, *keys, *values])]
        error = max(error_of(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
        return {"error": f"{error:.1e}"} | verdict(error <= 1e-4)

    def _precision(self, precision: str) -> torch.autocast:
        """Set the products' precision and return the context of a network's forward pass."""
        set_products({"fp32": "ieee"}.get(precision, precision))
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")

    def _time(self, step: Callable[[], None]) -> Row:
        """Return the median milliseconds of a step, and the most memory that it took above what was taken before."""
        start = time.perf_counter()
        step()
        self._synchronize()
        first = time.perf_counter() - start
        before = 0
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
        seconds: list[float] = []
        while (
            len(seconds) < (RUNS if self.on_gpu else 1)
            and sum(seconds) < TIMED
            and (not seconds or first < LONGEST_RUN)
        ):
            start = time.perf_counter()
            step()
            self._synchronize()
            seconds.append(time.perf_counter() - start)
        result: Row = {"ms": round(statistics.median(seconds) * 1e3, 3)}
        if self.on_gpu:
            result["peak MB"] = round((torch.cuda.max_memory_allocated(self.device) - before) / 2**20)
        return result

    def _synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def _implementations(self) -> list[str]:
        query, keys, values = self._inputs(size=(4, 4))
        problem = Problem(query, keys, [key_scale(key, 1.0, 3) for key in keys], values)
        reasons = {name: backend.why_not(problem) for name, backend in BACKENDS.items()}
        self.report["machine"] |= {f"no {name}": reason for name, reason in reasons.items() if reason}
        return [name for name, reason in reasons.items() if not reason]

    def _ways(self) -> list[tuple[str, str]]:
        """Return the implementations and the precisions that they have of their own."""
        precisions = ("ieee", "tf32") if self.on_gpu else ("ieee",)
        ways = [(name, products) for name in self._implementations() for products in precisions]
        return ways + [("triton", "bf16")] * (("triton", "tf32") in ways)

    def _inputs(
        self,
        size: tuple[int, int],
        batch: int = 1,
        channels: int = CHANNELS,
        depth: int = DEPTH,
        scales: Sequence[float] = SCALES,
        window: int | None = None,
        dtype: torch.dtype = torch.float32,
        training: bool = True,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        del window  # A case has it, for the attention.
        generator = torch.Generator().manual_seed(0)
        sizes = [level_size(*size, scale) for scale in scales if min(size) * scale >= 1]

        def draw(planes: int, height: int, width: int) -> Tensor:
            image = torch.randn(batch, planes, height, width, generator=generator)
            return image.to(self.device, dtype).requires_grad_(training)

        return draw(channels, *size), [draw(channels, *s) for s in sizes], [draw(depth, *s) for s in sizes]

    def _results(self, name: str, inputs: tuple[Tensor, list[Tensor], list[Tensor]], case: Row) -> list[Tensor]:
        """Return the output and all gradients."""
        query, keys, values = inputs
        output = pyramid_attention(query, keys, values, implementation=name, window=case.get("window"))
        slope = torch.linspace(-1, 1, output.numel(), device=output.device, dtype=torch.float64)
        gradients = torch.autograd.grad(output, [query, *keys, *values], slope.view(output.shape).to(output.dtype))
        return [output.detach(), *gradients]


#: Parts of the check and the seconds of each: together less than eight minutes, the start of Python included. A failed
#: capture of a CUDA graph may spoil what comes after it.
PARTS = {"correctness": 120, "attention": 130, "training": 90, "images": 40, "programs": 80}


def set_products(products: str) -> None:
    """Let PyTorch, and the kernels, round the operands of products on CUDA, and those of convolutions alike."""
    torch.set_float32_matmul_precision({"ieee": "highest", "tf32": "high", "bf16": "medium"}[products])
    torch.backends.cudnn.allow_tf32 = products != "ieee"


def error_of(mine: Tensor, theirs: Tensor) -> float:
    """Return the root mean square of the difference relative to that of the exact result."""
    difference = (mine.double() - theirs.double()).square().mean()
    return (difference / theirs.double().square().mean().clamp_min(1e-30)).sqrt().item()


def verdict(right: bool) -> Row:
    """Return it in words."""
    return {"verdict": "right" if right else "FAILED"}


def text(value: Any) -> str:
    """Return a case or a size in words."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(part)}" for key, part in value.items())
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def main() -> None:
    """Parse the command line and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu tries the check itself, at tiny sizes")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/gpu"), help="folder for the results")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to check")
    parser.add_argument("--seconds", type=float, default=sum(PARTS.values()), help="time for all parts together")
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"error: --device {options.device}: PyTorch finds no CUDA device; --device cpu tries the check itself")
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        parser.error("--seconds must be above 0")
    check = Check(options.device, options.out)
    check.run(options.parts, options.seconds)
    check.write()
    if check.failures:
        sys.exit(f"{len(check.failures)} cases failed")


if __name__ == "__main__":
    main()
