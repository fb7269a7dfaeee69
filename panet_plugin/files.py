"""Writing files so that nothing half-made is ever taken for whole."""

import os
import threading
from pathlib import Path


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
