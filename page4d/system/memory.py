"""How much memory this machine has left."""

from __future__ import annotations

import pathlib

_MEMINFO = pathlib.Path("/proc/meminfo")


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say (it is not Linux).

    The kernel's MemAvailable: pages of files that were read count as free, since they are given up when memory is
    wanted.
    """
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
