"""The parameters of one launch in memory, in the driver's layout: in the order of the kernel's own table."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping

from page4d_plugins.kernel_pack import Parameter
from page4d_plugins.launch_plan import Descriptor, Ref, Value

TENSOR_MAP = 128
_SLOT = 128  # bytes from one parameter to the next: a tensor map's size, and its alignment in CUDA 13
_ALIGNMENT = 128

Encode = Callable[[Descriptor, int], bytes]
"""Encodes a tensor map over the tensor at an address: 128 bytes."""


class ParameterBlock:
    """What `cuLaunchKernel` reads: an array of addresses, one for each parameter.

    Values are written once, addresses of tensors before a launch.
    """

    def __init__(self, parameters: list[Parameter], values: Mapping[str, Value]) -> None:
        """Lay out `values` as `parameters` say.

        Raises:
            KeyError: a parameter has no value.
        """
        self._memory = ctypes.create_string_buffer(_SLOT * len(parameters) + _ALIGNMENT)
        self._start = ctypes.addressof(self._memory) + -ctypes.addressof(self._memory) % _ALIGNMENT
        places = [self._start + _SLOT * i for i in range(len(parameters))]
        self._table = (ctypes.c_void_p * len(parameters))(*places)
        self._sizes = [parameter.size for parameter in parameters]
        self._refs: list[tuple[int, Ref | Descriptor]] = []
        for place, parameter in zip(places, parameters, strict=True):
            value = _value(parameter, values)
            if isinstance(value, Ref | Descriptor):
                size = 8 if isinstance(value, Ref) else TENSOR_MAP
                if parameter.size != size:
                    raise ValueError(f"{parameter.name} is {parameter.size} bytes in the kernel, {size} by the plan")
                self._refs.append((place, value))
            else:
                ctypes.memmove(place, _packed(parameter, value), parameter.size)
        self._pointed: dict[str, int] | None = None

    @property
    def address(self) -> int:
        """Of the array of addresses."""
        return ctypes.addressof(self._table)

    def point(self, addresses: Mapping[str, int], encode: Encode) -> None:
        """Write the tensors' addresses, by their names in the plan, unless they are those of the last call."""
        if addresses == self._pointed:
            return
        for place, ref in self._refs:
            address = addresses[ref.tensor]
            content = struct.pack("<Q", address + ref.offset) if isinstance(ref, Ref) else encode(ref, address)
            ctypes.memmove(place, content, len(content))
        self._pointed = dict(addresses)

    def bytes_of(self, index: int) -> bytes:
        """The bytes of one parameter that the driver reads."""
        return ctypes.string_at(self._start + _SLOT * index, self._sizes[index])


def _value(parameter: Parameter, values: Mapping[str, Value]) -> Value:
    if not parameter.name:
        return None
    name, _, part = parameter.name.partition(".")
    value = values[name]
    if not part:
        return value
    assert isinstance(value, Descriptor)
    return value.shape[int(part[-1])] if part.startswith("shape") else value.strides[int(part[-1])]


def _packed(parameter: Parameter, value: int | float | None) -> bytes:
    if parameter.floating:
        assert value is not None
        return struct.pack("<f", value)
    return int(value or 0).to_bytes(parameter.size, "little", signed=True)
