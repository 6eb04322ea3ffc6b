"""What machine code says of its kernel's parameters."""

from __future__ import annotations

import io
import struct

# EIATTR_KPARAM_INFO of an .nv.info section: index (4), ordinal (2), offset (2), a word with the size in its upper 14
# bits
_PARAMETER = 0x17
_SIZED = 0x04  # an attribute followed by its size


def parameter_table(cubin: bytes) -> list[tuple[int, int]]:
    """(offset, size) in bytes of every parameter, in order, of the one kernel of a cubin."""
    from elftools.elf.elffile import ELFFile

    found: dict[int, tuple[int, int]] = {}
    for section in ELFFile(io.BytesIO(cubin)).iter_sections():
        if section.name.startswith(".nv.info."):
            found |= _parameters(section.data())
    return [found[ordinal] for ordinal in sorted(found)]


def _parameters(data: bytes) -> dict[int, tuple[int, int]]:
    found, at = {}, 0
    while at < len(data):
        form, attribute, value = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == _SIZED:
            if attribute == _PARAMETER:
                _, ordinal, offset, packed = struct.unpack_from("<IHHI", data, at)
                found[ordinal] = (offset, packed >> 18)
            at += value
    return found
