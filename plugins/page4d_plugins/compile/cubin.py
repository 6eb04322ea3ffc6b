"""The parameter table of a kernel's machine code."""

from __future__ import annotations

import io
import struct

# EIATTR_KPARAM_INFO of an .nv.info section: index (4 bytes), ordinal (2), offset (2), a word with the size in its upper
# 14 bits
_PARAMETER = 0x17
_SIZED = 0x04  # an attribute followed by its size


def parameter_table(cubin: bytes) -> list[tuple[int, int]]:
    """(offset, size) in bytes of every parameter, in order, of the one kernel of a cubin."""
    from elftools.elf.elffile import ELFFile

    parameters: dict[int, tuple[int, int]] = {}
    for section in ELFFile(io.BytesIO(cubin)).iter_sections():
        if section.name.startswith(".nv.info."):
            parameters |= _parameters(section.data())
    return [parameters[ordinal] for ordinal in sorted(parameters)]


def _parameters(data: bytes) -> dict[int, tuple[int, int]]:
    parameters, at = {}, 0
    while at < len(data):
        form, attribute, value = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == _SIZED:
            if attribute == _PARAMETER:
                _, ordinal, offset, packed = struct.unpack_from("<IHHI", data, at)
                parameters[ordinal] = (offset, packed >> 18)
            at += value
    return parameters
