"""Measuring the cost of a training step separately from training, where other work would disturb the times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from panet_plugin.ablation.runs import in_process
from panet_plugin.ablation.settings import Setting
from panet_plugin.memory import high_water_mark, reset_high_water_mark

#: Rounds of one step of every setting, after a warm-up round.
ROUNDS = 20
#: Steps for measuring the memory of each setting.
MEMORY_ROUNDS = 5


@dataclass(frozen=True)
class StepCost:
    """Cost of one setting.

    Attributes:
        parameters: Parameters of the network.
        seconds: Time of a training step without data loading: the median over all rounds.
        times: Time relative to the reference: the median of the ratios within a round.
        megabytes: Increase of the memory of a process during a training step.
    """

    parameters: int
    seconds: float
    times: float
    megabytes: float


def measure(settings: Mapping[str, Setting], reference: str, threads: int) -> dict[str, StepCost]:
    """Measure the cost of settings, by name.

    Args:
        settings: Settings with their configs.
        reference: The setting whose relative time is 1.
        threads: Number of threads.
    """
    parameters, seconds = in_process(_time, dict(settings), threads)
    return {
        name: StepCost(
            parameters[name],
            statistics.median(seconds[name]),
            # Other work on the machine slows down consecutive steps equally.
            statistics.median(a / b for a, b in zip(seconds[name], seconds[reference], strict=True)),
            in_process(_grown_memory, setting, threads),
        )
        for name, setting in settings.items()
    }


def _time(settings: dict[str, Setting], threads: int) -> tuple[dict[str, int], dict[str, list[float]]]:
    """Return parameters of all settings, and the seconds of alternating steps."""
    torch.set_num_threads(threads)
    built = {name: _training_step(setting.config()) for name, setting in settings.items()}
    seconds: dict[str, list[float]] = {name: [] for name in built}
    for _ in range(ROUNDS + 1):
        for name, (_, step) in built.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: count for name, (count, _) in built.items()}, {name: taken[1:] for name, taken in seconds.items()}


def _grown_memory(setting: Setting, threads: int) -> float:
    """Return the increase of this process's memory during a step, in megabytes."""
    torch.set_num_threads(threads)
    _, step = _training_step(setting.config())
    step()  # loads code and creates the optimizer's state
    # Memory that was free when a step began is not counted, so the highest value is the most accurate.
    return max(_growth(step) for _ in range(MEMORY_ROUNDS))


def _growth(step: Callable[[], None]) -> float:
    peak: Callable[[], int] = high_water_mark
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        reset_high_water_mark()
        before = high_water_mark()
    step()
    return (peak() - before) / 2**20


def _training_step(cfg: Config) -> tuple[int, Callable[[], None]]:
    """Return the parameters of a config's network, and a training step on one batch of its data."""
    import panet_plugin.frameworks.mmagic  # noqa: F401 - registers everything in this new process

    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    if torch.cuda.is_available():
        model.cuda()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = {**cfg.train_dataloader, "num_workers": 0, "persistent_workers": False}
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))

    def step() -> None:
        model.train_step(batch, optimizer)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return sum(parameter.numel() for parameter in model.generator.parameters()), step
