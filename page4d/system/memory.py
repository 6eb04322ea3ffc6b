"""Memory: what this machine has left, and what this process holds."""

from __future__ import annotations

import pathlib
import resource
import sys

import psutil

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR_REFS = pathlib.Path("/proc/self/clear_refs")


def available_memory() -> int:
    """Bytes that can be allocated without swapping; cached pages of files count, since the system gives them up."""
    return psutil.virtual_memory().available


def resident_memory() -> int:
    """Bytes of memory that this process holds."""
    return psutil.Process().memory_info().rss


def peak_memory() -> int:
    """The most bytes that this process has held, since it began or since `reset_peak_memory`.

    Linux' own mark of the process, which psutil does not read; elsewhere `ru_maxrss`, which a process inherits from
    the one that started it.
    """
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak_memory() -> None:
    """Let `peak_memory` count from here on; Linux alone can do that."""
    _CLEAR_REFS.write_text("5")
