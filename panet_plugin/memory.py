"""The memory that this process has used and may use."""

import contextlib
import ctypes
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil


def high_water_mark() -> int:
    """Return the peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would include the peak of the parent process.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024


def give_back() -> None:
    """Return freed memory that the C library keeps to the system, on Linux."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_high_water_mark() -> None:
    """Reset :func:`high_water_mark`, on Linux.

    Freed memory is returned to the system first, so that it counts when it is used again.
    """
    give_back()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available_memory(root: Path = Path("/")) -> int:
    """Return the memory available to this process in bytes, limited by the system and by control groups.

    Args:
        root: Folder of ``proc`` and ``sys``.
    """
    return min([psutil.virtual_memory().available, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> Iterator[int]:
    """Yield what remains of the limits of this process's control groups, version 1 or 2, and their parents."""
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
        # In a container, the path may exist only on the host; the top group is then the container's own.
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):
                cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                taken = int((group / used).read_text()) - int(cache.get(reclaimed, 0))
                # ValueError if it is "max".
                yield max(int((group / limit).read_text()) - taken, 0)
            if group == top:
                break
