"""How much memory is free, on the host and on a GPU."""

from __future__ import annotations

import pathlib

from page4d_plugins.driver import checked, driver, is_integrated

_MEMINFO = pathlib.Path("/proc/meminfo")


def available() -> int | None:
    """Bytes of the host's memory that programs can still take; None where the system does not say (it is not Linux).

    The kernel's MemAvailable: pages of files that were read count as free, since they are given up when memory is wanted.
    """
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def free_on_gpu(device: int) -> int:
    """Bytes of a GPU's memory that are free; its context is current.

    On a GPU whose memory is the host's (Jetson, DGX Spark) that is `available`: the driver counts pages of files as taken there, those of an
    engine folder that was just held against its hashes among them.
    """
    if is_integrated(device) and (bytes_available := available()) is not None:
        return bytes_available
    return int(checked(driver().cuMemGetInfo())[0])
