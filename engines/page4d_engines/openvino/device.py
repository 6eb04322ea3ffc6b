"""OpenVINO's devices, and the types that they compute in."""

from __future__ import annotations

import functools
from typing import Any

from page4d.errors import MissingBackendError
from page4d.precision import Precision
from page4d_engines.openvino import attention, channel_runs, int8
from page4d_engines.openvino.library import has_bfloat16_tiles, has_float16_tiles, library
from page4d_engines.options import CPU

# by how they are named in OpenVINO's OPTIMIZATION_CAPABILITIES and INFERENCE_PRECISION_HINT; the nearer one first
_NARROW = {
    Precision.FLOAT16: ((Precision.FLOAT16, "FP16"), (Precision.BFLOAT16, "BF16")),
    Precision.BFLOAT16: ((Precision.BFLOAT16, "BF16"),),
    Precision.INT8: ((Precision.BFLOAT16, "BF16"),),  # what is not a product of bytes; their error is far larger
}
HINTS = {Precision.FLOAT32: "f32", Precision.FLOAT16: "f16", Precision.BFLOAT16: "bf16"}
"""The names of types as OpenVINO has them."""


@functools.cache
def core() -> Any:
    """OpenVINO's core, one for the process.

    Raises:
        MissingBackendError: as `library`.
    """
    loaded = library().Core()
    for extension in (*attention.extensions(), *channel_runs.extensions(), *int8.extensions()):
        loaded.add_extension(extension)
    return loaded


def require_device(device: str) -> None:
    """Raise unless OpenVINO has the device.

    Raises:
        MissingBackendError: it has not, or is not installed.
    """
    devices = list(core().available_devices)
    if device.partition(".")[0] not in {name.partition(".")[0] for name in devices}:
        raise MissingBackendError(
            f"OpenVINO {library().__version__} has no such device",
            got=device,
            allowed=", ".join(devices),
            hint="for GPU: Intel's compute runtime (intel-opencl-icd) and access to /dev/dri",
        )


def computing_precision(precision: Precision, device: str) -> Precision:
    """The type that a folder of a precision is computed in on a device.

    Float32 stays float32. 16 bits become what the device has: their own type, for float16 else bfloat16, else float32;
    float16 becomes bfloat16 on a CPU whose AMX has bfloat16 alone, where float16 takes three times as long.
    Int8: bfloat16 or float32, around the products of bytes where there are some.
    """
    capabilities = set(core().get_property(device, "OPTIMIZATION_CAPABILITIES"))
    if device.startswith(CPU) and has_bfloat16_tiles() and not has_float16_tiles():
        capabilities.discard("FP16")
    choices = _NARROW.get(precision, ())
    return next((choice for choice, name in choices if name in capabilities), Precision.FLOAT32)


def multiplies_bytes(folder: Precision) -> bool:
    """Whether a folder's products are of bytes: int8 engines', with VNNI and without AMX; else in floating point."""
    return folder is Precision.INT8 and int8.multiplies_bytes()


def described(device: str, folder: Precision, precision: Precision) -> str:
    """Library, version and device, and the `computing_precision` of a folder's."""
    bytes_too = " and int8" if multiplies_bytes(folder) else ""
    return f"OpenVINO {library().__version__.partition('-')[0]} on {device}, computing in {precision}{bytes_too}"
