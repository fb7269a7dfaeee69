"""What trainings in either framework share: one per work dir, an orderly end on a signal, and a bound on NaN."""

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

#: Steps in a row whose loss or gradient is not finite, after which a training ends.
MAX_NONFINITE_STEPS = 10


@contextmanager
def alone_in(work_dir: Path) -> Iterator[None]:
    """Hold a work dir for this training; the hold ends with the process, however that ends.

    Of the processes of a distributed training the first one holds it. The lock lies beside the folder, which BasicSR
    renames if it exists.

    Raises:
        TrainingError: If another training holds it.
    """
    if any(os.environ.get(name, "0") != "0" for name in ("RANK", "SLURM_PROCID")):
        yield
        return
    with ExitStack() as held:
        try:
            # Another lock than that of the folder, which whoever starts the training may hold.
            held.enter_context(locked(work_dir.with_name(f"{work_dir.name}.training"), wait=False))
        except BlockingIOError as error:
            holder = str(error.strerror).removeprefix("held by ")
            raise TrainingError(
                f"{work_dir} is in use by another training ({holder}): wait for it, or choose another --work-dir"
            ) from None
        yield


@contextmanager
def logged_by(log: logging.Logger) -> Iterator[None]:
    """Let what this package logs reach the log of a training, on the console and in its file, for a while."""
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
        if self._log.isEnabledFor(record.levelno):  # in one process of several
            self._log.handle(record)


class Interruption:
    """Notes SIGTERM, SIGINT and SIGUSR1, so that a training saves before it ends.

    A SIGTERM or SIGINT after that ends it at once. SIGUSR1 is what Slurm is asked to send before the time is over: a
    training that was canceled by SIGTERM is not to be queued again.

    Attributes:
        number: Of the signal that came, 0 before.
    """

    #: That of the training that runs, for models that no argument reaches.
    current: ClassVar["Interruption | None"] = None
    #: Iterations of a distributed training between the questions whether another process was asked to end, each of
    #: which waits for all of them.
    EVERY = 10

    def __init__(self) -> None:
        self.number = 0

    @contextmanager
    def noted(self) -> Iterator["Interruption"]:
        """Note signals for a while."""
        if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
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
        """Return whether the training is to end after an iteration; the processes of a distributed one agree."""
        if dist.is_available() and dist.is_initialized():
            if iteration % self.EVERY:
                return False
            number = torch.tensor(self.number, device="cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(number, dist.ReduceOp.MAX)
            self.number = int(number)
        return self.number != 0

    def leave(self, saved: object) -> NoReturn:
        """End the program as a shell expects it of one that a signal ended: with 128 and the signal's number."""
        if dist.is_available() and dist.is_initialized():
            # The first process may still be writing, and launchers end all others once one has ended.
            dist.barrier()
        logger.warning("ended by %s; resume from %s", signal.Signals(self.number).name, saved)
        raise SystemExit(128 + self.number)


class _Forks:
    """Lets forked processes, which load data, end on the SIGTERM of their training alone.

    Slurm sends one to all processes of a step, and the training needs data until its processes leave together.
    """

    def __init__(self) -> None:
        self._kept = threading.local()
        if hasattr(os, "register_at_fork") and hasattr(signal, "sigwaitinfo"):  # neither on Windows nor on macOS
            os.register_at_fork(before=self._block, after_in_parent=self._restore, after_in_child=self._wait)

    def _block(self) -> None:
        # Libraries restart threads of their own in the fork, and a thread that does not block it would take the signal.
        # A handler would not last: PyTorch puts its own in the place of any other.
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
    """Counts steps in a row that are not finite.

    Args:
        most: How many end the training; 0 allows any number.
    """

    def __init__(self, most: int = MAX_NONFINITE_STEPS) -> None:
        self.most = most
        self.in_a_row = 0

    def skips(self, finite: bool, iteration: int, images: Iterable[str]) -> bool:
        """Return whether a step is to be skipped, and log it.

        Raises:
            TrainingError: If that is one too many.
        """
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if finite:
            return False
        names = ", ".join(images) or "of unknown names"
        logger.warning("iteration %d: loss or gradient is not finite; step skipped; images: %s", iteration, names)
        if self.in_a_row == self.most:
            raise TrainingError(
                f"{self.most} steps in a row were not finite, the last at iteration {iteration} with images {names}: "
                "lower the learning rate or clip gradients; the last checkpoint is finite"
            )
        return True


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint was written to its end: the directory there is the last that is written."""
    try:
        return zipfile.is_zipfile(checkpoint)
    except zipfile.BadZipFile:  # a directory that contradicts itself: some versions of Python raise this
        return False


def all_finite(tensors: Iterable[Tensor | None]) -> bool:
    """Return whether no tensor holds NaN or infinities; None stands for a gradient that there is not."""
    found = [torch.isfinite(tensor).all() for tensor in tensors if tensor is not None]
    # One question to the device, which waits for it.
    return not found or bool(torch.stack(found).all())


def must_be_finite(network: nn.Module, path: Path) -> None:
    """Raise TrainingError if a network's weights are not finite and so must not replace a checkpoint."""
    if not all_finite(network.state_dict().values()):
        raise TrainingError(f"{path} is not written: the network's weights are not finite")


#: What optimizers and schedules count or derive, beside names that begin with an underscore.
_COUNTERS = frozenset({"params", "lr", "last_step", "last_epoch", "base_values", "base_lrs", "verbose"})


def report_resumed(
    iteration: int,
    optimizers: Sequence[Mapping[str, Any]],
    schedules: Sequence[Mapping[str, Any]],
    stored_optimizers: Sequence[Mapping[str, Any]],
    stored_schedules: Sequence[Mapping[str, Any]],
) -> None:
    """Log which settings of a resumed training are the checkpoint's, which the config's, and where these differ.

    Args:
        iteration: Of the checkpoint.
        optimizers: State dicts as the config has made them.
        schedules: Those of the schedules of the learning rate.
        stored_optimizers: State dicts of the checkpoint.
        stored_schedules: Those of its schedules.

    Raises:
        TrainingError: If the checkpoint's schedules are of another kind, which can be neither loaded nor ignored.
    """
    kinds, stored_kinds = ([sorted(_settings(schedule)) for schedule in all] for all in (schedules, stored_schedules))
    if kinds != stored_kinds:
        raise TrainingError(
            f"the checkpoint's schedule of the learning rate has {stored_kinds}, expected {kinds} as in the config: "
            "resume with the former schedule, or start a new training from the checkpoint's weights"
        )
    logger.info(
        "resumed at iteration %d: optimizer (learning rate) and schedule are those of the checkpoint; length, data, "
        "batch size, loss and intervals those of the config",
        iteration,
    )
    groups, stored_groups = ([g for o in all for g in o["param_groups"]] for all in (optimizers, stored_optimizers))
    ignored = {
        f"{what} {name}={wanted} (the checkpoint has {stored[name]})"
        for what, pairs in (
            ("optimizer", zip(groups, stored_groups, strict=False)),
            ("schedule", zip(schedules, stored_schedules, strict=True)),
        )
        for built, stored in ((_settings(one), _settings(other)) for one, other in pairs)
        for name, wanted in built.items()
        if name in stored and stored[name] != wanted
    }
    if ignored:
        logger.warning("the config is not followed in: %s", "; ".join(sorted(ignored)))


def _settings(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        # Tuples and counters are what lists of a config have become.
        name: list(value) if isinstance(value, tuple | Mapping) else value
        for name, value in state.items()
        if not name.startswith("_") and name not in _COUNTERS
    }
