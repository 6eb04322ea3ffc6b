"""The CPU of this machine: its name and its instruction sets."""

from __future__ import annotations

import functools
import pathlib
import platform

_EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}  # as Linux names them
_CPUINFO = pathlib.Path("/proc/cpuinfo")  # psutil counts cores and does not name them


def cpu_name() -> str:
    """As the maker names it; its architecture where the system does not say (it is not Linux, or not x86)."""
    return _facts().get("model name") or platform.processor() or platform.machine()


def cpu_features() -> frozenset[str]:
    """Instruction sets as Linux names them, `avx512_vnni`; empty where the system does not say."""
    return frozenset(_facts().get("flags", "").split())


def multiplies_signed() -> bool:
    """Whether this CPU has exact products of unsigned by signed bytes; False where the system does not say."""
    return not _EXACT.isdisjoint(cpu_features())


@functools.cache
def _facts() -> dict[str, str]:
    """Of the first core."""
    try:
        first_core = _CPUINFO.read_text().partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first_core.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
