"""Writing files so that nothing half-made is ever taken for whole, and by one process at a time."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that it is either whole or not there.

    Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock ``.NAME.lock`` beside a path; others wait for it. It ends with the process, however that ends."""
    import fcntl  # Not on Windows, where nothing but this needs it.

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that makes %s", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
