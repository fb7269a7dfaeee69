"""Shared code for training in both frameworks: locks of work dirs, signals, and limits of nonfinite steps."""

import logging
import os
import signal
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from panet_plugin.errors import TrainingError
from panet_plugin.files import locked

logger = logging.getLogger(__name__)

#: Default number of consecutive nonfinite steps after which training ends.
MAX_NONFINITE_STEPS = 10


@contextmanager
def alone_in(work_dir: Path) -> Iterator[None]:
    """Lock a work dir for this training run; the lock is released when the process ends in any way.

    In distributed training, the first process holds the lock. It is beside the folder, since BasicSR renames existing
    folders.

    Raises:
        TrainingError: If another training run holds it.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "SLURM_PROCID")):
        yield
        return
    with ExitStack() as held:
        try:
            # Not the lock of the folder itself, which the caller may hold.
            held.enter_context(locked(work_dir.with_name(f"{work_dir.name}.training"), wait=False))
        except BlockingIOError as error:
            holder = str(error.strerror).removeprefix("held by ")
            raise TrainingError(
                f"{work_dir} is in use by another training run ({holder}): wait for it, or choose another --work-dir"
            ) from None
        yield


@contextmanager
def logged_by(log: logging.Logger) -> Iterator[None]:
    """Temporarily forward this package's log messages to those of training, on the console and in its file."""
    ours = logging.getLogger("panet_plugin")
    handler, level = _PassOn(log), ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


class _PassOn(logging.Handler):
    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if self._log.isEnabledFor(record.levelno):  # only in one of several processes
            self._log.handle(record)


class Interruption:
    """Records SIGTERM, SIGINT and SIGUSR1, so that training saves a checkpoint before it ends.

    A second SIGTERM or SIGINT ends it immediately. Slurm is configured to send SIGUSR1 before the time limit; a job
    that was canceled by SIGTERM is not queued again.

    Attributes:
        number: Number of the received signal, 0 before.
    """

    #: The instance of the current training run, for models to which it cannot be passed.
    current: ClassVar["Interruption | None"] = None
    #: Iterations of distributed training between checks whether another process received a signal, which synchronize
    #: all processes.
    EVERY = 10

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def noted(self) -> Iterator["Interruption"]:
        """Record signals inside the context."""
        if threading.current_thread() is not threading.main_thread():  # Python does not allow handlers there
            yield self
            return
        # Windows has no SIGUSR1.
        numbers = {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGUSR1", signal.SIGINT)}
        before = {number: signal.signal(number, self._note) for number in numbers}
        Interruption.current = self
        try:
            yield self
        finally:
            Interruption.current = None
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def asked(self, iteration: int) -> bool:
        """Return whether training should end after an iteration; all processes of distributed training agree."""
        if dist.is_available() and dist.is_initialized():
            if iteration % self.EVERY:
                return False
            number = torch.tensor(self.number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(number, dist.ReduceOp.MAX)
            self.number = int(number)
        return self.number != 0

    def leave(self, saved: object) -> NoReturn:
        """Exit with 128 + the signal's number, by convention for programs ended by signals."""
        if dist.is_available() and dist.is_initialized():
            # The first process may still be writing, and launchers end all processes when one exits.
            dist.barrier()
        logger.warning("ended by %s; resume from %s", signal.Signals(self.number).name, saved)
        raise SystemExit(128 + self.number)


class _Forks:
    """Makes forked data-loading processes end only on SIGTERM from their training process.

    Slurm sends SIGTERM to all processes of a step, but training needs data until its processes exit together.
    """

    def __init__(self) -> None:
        self._kept = threading.local()
        if hasattr(os, "register_at_fork") and hasattr(signal, "sigwaitinfo"):  # not on Windows or macOS
            os.register_at_fork(before=self._block, after_in_parent=self._restore, after_in_child=self._wait)

    def _block(self) -> None:
        # Libraries restart threads in the forked process, and a thread that does not block the signal would receive it.
        # A handler would not persist: PyTorch replaces it by its own.
        if Interruption.current is not None:
            self._kept.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def _restore(self) -> None:
        if (mask := vars(self._kept).pop("mask", None)) is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _wait(self) -> None:
        if vars(self._kept).pop("mask", None) is None:
            return
        training = os.getppid()

        def wait() -> None:
            while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
                pass
            os._exit(0)

        threading.Thread(target=wait, daemon=True).start()


_Forks()


class NonFinite:
    """Counts consecutive nonfinite steps.

    Args:
        most: Number of steps that ends training; 0 for no limit.
    """

    def __init__(self, most: int = MAX_NONFINITE_STEPS) -> None:
        self.most = most
        self.in_a_row = 0

    def skips(self, finite: bool, iteration: int, images: Iterable[str]) -> bool:
        """Return whether to skip a step, and log it.

        Raises:
            TrainingError: If the limit is reached.
        """
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if finite:
            return False
        names = ", ".join(images) or "of unknown names"
        logger.warning("iteration %d: nonfinite loss or gradient; step skipped; images: %s", iteration, names)
        if self.in_a_row == self.most:
            raise TrainingError(
                f"{self.most} consecutive steps were nonfinite, the last at iteration {iteration} with images {names}: "
                "lower the learning rate or clip gradients; the last checkpoint is finite"
            )
        return True


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint is complete: the zip directory at its end is written last."""
    try:
        return zipfile.is_zipfile(checkpoint)
    except zipfile.BadZipFile:  # an inconsistent directory: some versions of Python raise this
        return False


def all_finite(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether no tensor contains NaN or infinity; None, a missing gradient, is allowed."""
    found = [torch.isfinite(tensor).all() for tensor in tensors if tensor is not None]
    # A single synchronization with the device.
    return not found or bool(torch.stack(found).all())


def must_be_finite(network: nn.Module, path: Path) -> None:
    """Raise TrainingError if a network's weights are nonfinite and must not replace a checkpoint."""
    if not all_finite(network.state_dict().values()):
        raise TrainingError(f"{path} is not written: the network's weights are nonfinite")


#: State of optimizers and schedules that is counted or derived, besides names that begin with an underscore.
_COUNTERS = frozenset({"params", "lr", "last_step", "last_epoch", "base_values", "base_lrs", "verbose"})


def report_resumed(
    iteration: int,
    optimizers: Sequence[Mapping[str, Any]],
    schedules: Sequence[Mapping[str, Any]],
    stored_optimizers: Sequence[Mapping[str, Any]],
    stored_schedules: Sequence[Mapping[str, Any]],
) -> None:
    """Log which settings of resumed training are from the checkpoint or the config, and where these differ.

    Args:
        iteration: Iteration of the checkpoint.
        optimizers: State dicts of the config's optimizers.
        schedules: State dicts of the config's learning rate schedules.
        stored_optimizers: State dicts of the checkpoint's optimizers.
        stored_schedules: State dicts of the checkpoint's schedules.

    Raises:
        TrainingError: If the checkpoint's schedules have other types, which can be neither loaded nor ignored.
    """
    kinds, stored_kinds = ([sorted(_settings(schedule)) for schedule in all] for all in (schedules, stored_schedules))
    if kinds != stored_kinds:
        raise TrainingError(
            f"the checkpoint's learning rate schedule is {stored_kinds}, expected {kinds} as in the config: "
            "resume with that schedule, or start a new training run from the checkpoint's weights"
        )
    logger.info(
        "resumed at iteration %d: optimizer (learning rate) and schedule are from the checkpoint; length, data, "
        "batch size, loss and intervals are from the config",
        iteration,
    )
    groups, stored_groups = ([g for o in all for g in o["param_groups"]] for all in (optimizers, stored_optimizers))
    ignored = {
        f"{what} {name}={wanted} (checkpoint: {stored[name]})"
        for what, pairs in (
            ("optimizer", zip(groups, stored_groups, strict=False)),
            ("schedule", zip(schedules, stored_schedules, strict=True)),
        )
        for built, stored in ((_settings(one), _settings(other)) for one, other in pairs)
        for name, wanted in built.items()
        if name in stored and stored[name] != wanted
    }
    if ignored:
        logger.warning("settings of the config that are not used: %s", "; ".join(sorted(ignored)))


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        # Lists of a config become tuples or counters.
        name: list(value) if isinstance(value, tuple | Mapping) else value
        for name, value in state.items()
        if not name.startswith("_") and name not in _COUNTERS
    }
