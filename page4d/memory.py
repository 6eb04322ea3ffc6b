"""How much memory this machine has left."""

from __future__ import annotations

import pathlib


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say (it is not Linux)."""
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("MemAvailable")), None)
