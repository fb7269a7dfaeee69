"""Writing files atomically, and locks between processes."""

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file atomically; see :func:`replacing`."""
    with replacing(path, f"its {len(content)} bytes") as file:
        file.write(content)


@contextmanager
def replacing(path: str | os.PathLike, what: str = "it") -> Iterator[BinaryIO]:
    """Open a file under a temporary name; at the end, sync and rename it. After an error it is removed.

    Missing folders are created.

    Args:
        path: Of the file.
        what: Description of the content for error messages.

    Raises:
        OSError: If that fails; an existing file is kept. The message names the file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Only the beginning of a long name: file names have at most 255 bytes.
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
    """Hold the lock ``.NAME.lock`` beside a path; other processes wait for it.

    It is released when the process ends in any way, even if its forked processes continue.

    Raises:
        BlockingIOError: Without ``wait``, if another process holds it; the message names that process.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.lock")
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            holder = place.read_text().strip() or "unknown"
            raise BlockingIOError(errno.EAGAIN, f"held by process {holder}", str(path)) from None
        logger.info("waiting for another process that is writing %s", path)
        lock.acquire()
    try:
        place.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()
