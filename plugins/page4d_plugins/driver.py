"""The CUDA driver through cuda-core's bindings, loaded at first use: machines without it can import everything."""

from __future__ import annotations

from functools import cache
from typing import Any

from page4d.errors import MissingBackendError, OutOfMemoryError


@cache
def driver() -> Any:
    """The bindings, ready to be called.

    Raises:
        MissingBackendError: no cuda-core, or no driver that answers.
    """
    try:
        import cuda.core  # noqa: F401  kernels are loaded with it (launcher.py)
        from cuda.bindings import driver as api
    except ImportError:
        raise MissingBackendError(
            "GPUs are reached through cuda-core, which is not installed", hint='pip install "page4d[gpu]"'
        ) from None
    try:
        ready = int(api.cuInit(0)[0]) == 0
    except RuntimeError:  # there is no driver library to load
        ready = False
    if not ready:
        raise MissingBackendError("no GPU driver answers", allowed="an NVIDIA GPU and its driver")
    return api


def checked(result: tuple[Any, ...]) -> Any:
    """The result of a driver call: its value, or a tuple where it has several.

    Raises:
        OutOfMemoryError: the GPU has too little memory left.
        RuntimeError: the driver's error by name.
    """
    error, *values = result
    if int(error) == int(driver().CUresult.CUDA_ERROR_OUT_OF_MEMORY):
        raise OutOfMemoryError("the GPU has too little memory left", hint="a smaller --T, --V, --height or --width")
    if int(error):
        raise RuntimeError(f"the CUDA driver refused a call: {error.name}")
    return (values[0] if len(values) == 1 else tuple(values)) if values else None


def capability_of(device: int) -> int:
    """Compute capability of a GPU, times ten.

    Raises:
        MissingBackendError: no cuda-core, or no driver.
    """
    api = driver()
    attribute = api.CUdevice_attribute
    major = checked(api.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = checked(api.cuDeviceGetAttribute(attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    return int(10 * major + minor)


def is_integrated(device: int) -> bool:
    """Whether a GPU's memory is the host's.

    Raises:
        MissingBackendError: no cuda-core, or no driver.
    """
    api = driver()
    return bool(checked(api.cuDeviceGetAttribute(api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_INTEGRATED, device)))


def chip_here() -> str | None:
    """`sm_<capability>` of this machine's first GPU; None where none answers."""
    try:
        return f"sm_{capability_of(0)}"
    except MissingBackendError:
        return None


def current_device() -> int:
    """Number of the GPU whose context is current on this thread."""
    return int(checked(driver().cuCtxGetDevice()))


def cuda_version() -> tuple[int, int]:
    """(major, minor) of the newest CUDA that the driver runs."""
    version = int(checked(driver().cuDriverGetVersion()))
    return version // 1000, version % 1000 // 10
