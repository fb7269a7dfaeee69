"""How much memory this process has had, and may have."""

import contextlib
import ctypes
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil


def high_water_mark() -> int:
    """Return the most memory this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would include that of the process that started this one.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024


def give_back() -> None:
    """Give what was freed back to the system, where the C library keeps some of it: on Linux."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_high_water_mark() -> None:
    """Let :func:`high_water_mark` forget the past, where the system can: on Linux.

    What was freed before is given back, so that memory counts anew when it is used again.
    """
    give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process may still take: what the system has free, and its control groups leave.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    return min([psutil.virtual_memory().available, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> Iterator[int]:
    """Yield what each group of version 1 or 2 leaves, of this process's and those around it that have a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if number == "0":
            limit, used, reclaimed = "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top /= "memory"
            limit, used, reclaimed = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        # In a container the path may be one that only its host sees; the group at the top is its own then.
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):
                cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                taken = int((group / used).read_text()) - int(cache.get(reclaimed, 0))
                # ValueError where it is "max".
                yield max(int((group / limit).read_text()) - taken, 0)
            if group == top:
                break
