"""How much of a GPU's memory is free."""

from __future__ import annotations

from page4d.system.memory import available_memory
from page4d_plugins.driver import checked, driver, is_integrated


def free_on_gpu(device: int) -> int:
    """Bytes of a GPU's memory that are free; its context is current.

    On a GPU whose memory is the host's (Jetson, DGX Spark) that is `available_memory`: the driver counts pages of files
    as taken there, those of an engine folder whose hashes were just checked among them.
    """
    if is_integrated(device):
        return available_memory()
    return int(checked(driver().cuMemGetInfo())[0])
