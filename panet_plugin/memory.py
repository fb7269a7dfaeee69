"""How much memory this process has had."""

import contextlib
import ctypes
import resource
import sys
from pathlib import Path


def high_water_mark() -> int:
    """Return the most memory this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would include that of the process that started this one.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024


def reset_high_water_mark() -> None:
    """Let :func:`high_water_mark` forget the past, where the system can: on Linux.

    What was freed before is given back to the system, so that memory counts anew when it is used again.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
