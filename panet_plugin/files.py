"""Writing files so that nothing half-made is ever taken for whole, and by one process at a time."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

logger = logging.getLogger(__name__)

#: The open files of locks that this process holds.
_LOCKS: set[IO] = set()


def _leave_locks() -> None:
    """Close them in a process that was forked, which would keep them held once this one has ended."""
    while _LOCKS:
        _LOCKS.pop().close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_leave_locks)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file so that it is either whole or not there; see :func:`replacing`."""
    with replacing(path, f"its {len(content)} bytes") as file:
        file.write(content)


@contextmanager
def replacing(path: str | os.PathLike, what: str = "it") -> Iterator[BinaryIO]:
    """Open a file under a temporary name; at the end have it stored, and rename it. After an error it is removed.

    Missing folders are made.

    Args:
        path: Of the file.
        what: What the message of an error says cannot be written.

    Raises:
        OSError: If that fails; what was there before is unharmed. The message names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of a long name the beginning: names of files have 255 bytes at most.
    temporary = path.with_name(f".{path.name[:30]}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = f"cannot write {what}: {error.strerror or error}"
            raise type(error)(error.errno, reason, str(path)) from error
        raise


@contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Hold the lock ``.NAME.lock`` beside a path; others wait for it.

    It ends with the process, however that ends, and even if processes that it has forked go on.

    Raises:
        BlockingIOError: Without ``wait``, if another process holds it; the message names that process.
    """
    import fcntl  # Not on Windows, where nothing but this needs it.

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise BlockingIOError(error.errno, f"held by process {holder}", str(path)) from None
            logger.info("waiting for another process that makes %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        _LOCKS.add(file)
        try:
            yield
        finally:
            _LOCKS.discard(file)
