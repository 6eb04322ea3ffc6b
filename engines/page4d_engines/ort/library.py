"""ONNX Runtime itself: the versions that work, its reports, what its errors mean."""

from __future__ import annotations

import functools
import os
import re

import onnxruntime

from page4d.errors import EngineError, MissingBackendError, OutOfMemoryError
from page4d_engines.versions import TRIED, require


@functools.cache
def report_nothing() -> None:
    """Turn telemetry off, also where a program imported ONNX Runtime before this package could forbid it."""
    # older versions report nothing and have no such function
    if os.environ.get("ORT_DISABLE_TELEMETRY") == "1" and hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()


@functools.cache
def require_supported() -> None:
    """Refuse a package that is too old: it lacks calls.

    Raises:
        MissingBackendError: it is.
    """
    gpu = "-gpu" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else ""
    require("onnxruntime", onnxruntime.__version__, gpu)


def require_onnx(what: str) -> None:
    """Refuse to go on without the package `onnx`, which rewrites graphs; before 1.19 it reads bfloat16 as integers.

    Args:
        what: needs it.

    Raises:
        MissingBackendError: it is not installed, or too old.
    """
    try:
        import onnx
    except ImportError as error:
        hint = f'pip install "onnx>={TRIED["onnx"].lowest},<2"'
        raise MissingBackendError(f"{what} needs the package onnx", got=error, hint=hint) from None
    require("onnx", onnx.__version__)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unloadable(error: Exception, name: str) -> EngineError:
    """The error of a stage that ONNX Runtime does not load: of a newer ONNX than it reads, or damaged."""
    installed = f"ONNX Runtime {onnxruntime.__version__}"
    newer = re.search(
        r"max supported (IR version): (\d+)|support for domain (?:ai\.onnx|\S+) is till (opset) (\d+)", str(error)
    )
    if newer:
        limit = " ".join(part for part in newer.groups() if part)
        what = f"{name} is written in a newer ONNX than {installed} reads"
        hint = "pip install --upgrade onnxruntime, or page4d-export again beside this one"
        return EngineError(what, allowed=f"up to {limit}", hint=hint)
    tried = TRIED["onnxruntime"]
    hint = f"page4d-export again, or another ONNX Runtime: {tried.lowest} to {tried.newest} were tried"
    return EngineError(f"{name} cannot be loaded by {installed}: {first_line(error)}", hint=hint)


def translated(error: Exception, name: str, otherwise: Exception) -> Exception:
    """`OutOfMemoryError` where that is what ONNX Runtime's error says, else `otherwise`."""
    signs = ("allocate memory", "bad_alloc", "bad allocation")
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in signs):
        return OutOfMemoryError(
            f"{name} ran out of memory: {first_line(error)}", hint="export a smaller --T, --V, --height, --width"
        )
    return otherwise
