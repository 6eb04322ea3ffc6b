"""OpenVINO itself: imported without reports to its maker, the types that a device computes in, what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import os
import pathlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType

from page4d.errors import EngineError, MissingBackendError, OutOfMemoryError
from page4d.system.cpu import cpu_features
from page4d_engines.versions import TRIED, require

_REPORTS = "openvino_telemetry"
_IMPORTING = threading.Lock()
_HINT = 'pip install "page4d[openvino]"'
_BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}


def library() -> ModuleType:
    """The package `openvino`.

    Its import would report itself to the maker, unless its telemetry package is absent: for the import it is.

    Raises:
        MissingBackendError: it is not installed, or too old.
    """
    with _IMPORTING:
        loaded = sys.modules.get("openvino")
        if loaded is None:
            loaded = _imported()
    require("openvino", loaded.__version__)
    return loaded


def _imported() -> ModuleType:
    try:
        with without_reports():
            return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingBackendError("OpenVINO is not installed", got=str(error), hint=_HINT) from None


@contextlib.contextmanager
def without_reports() -> Iterator[None]:
    """What is imported meanwhile finds no telemetry package, and reports nothing to OpenVINO's maker."""
    before = sys.modules.get(_REPORTS, _REPORTS)
    if before == _REPORTS:
        sys.modules[_REPORTS] = None  # type: ignore[assignment]  # how Python marks what cannot be imported
    try:
        yield
    finally:
        if before == _REPORTS:
            del sys.modules[_REPORTS]


def is_installed() -> bool:
    """Whether the package is there; loads nothing."""
    try:
        return importlib.util.find_spec("openvino") is not None
    except ValueError:  # a program marked it as not importable
        return False


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16; False where the system does not say."""
    return not _BFLOAT16_FEATURES.isdisjoint(cpu_features())


def has_bfloat16_tiles() -> bool:
    """Whether this CPU has AMX for bfloat16: it multiplies tiles of matrices. False where the system does not say."""
    return "amx_bf16" in cpu_features()


def has_float16_tiles() -> bool:
    """As `has_bfloat16_tiles`, for float16."""
    return "amx_fp16" in cpu_features()


def cache_folder(computing: str) -> pathlib.Path | None:
    """Where compiled models are kept, by OpenVINO's version and type: `$XDG_CACHE_HOME` or `~/.cache`, there `page4d`.

    What lies there is loaded without a further check, so the folder is its owner's alone. None where it cannot be made,
    or is somebody else's.

    Args:
        computing: the type to compute in, by OpenVINO's name. It takes a model that was compiled for another type as
            if it were the right one, and gives NaN or crashes.
    """
    try:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        folder = home / "page4d" / f"openvino-{library().__version__.partition('-')[0]}-{computing}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except (OSError, RuntimeError):  # no home
        return None
    is_ours = status.st_uid == os.getuid() and not status.st_mode & 0o022
    return folder if is_ours and os.access(folder, os.W_OK | os.X_OK) else None


@contextlib.contextmanager
def alone_in_cache(folder: str | None) -> Iterator[bool]:
    """Hold a folder of compiled models for this process: OpenVINO reads a file while another process still writes it.

    Args:
        folder: as `cache_folder` gives it; None where there is none.

    Yields:
        Whether the folder may be used: False without one, and where the file system has no locks.
    """
    lock = None if folder is None else _locked(os.path.join(folder, "lock"))
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _locked(path: str) -> int | None:
    """A file, made and locked, once no other process holds it; None where that cannot be."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    return lock


def translated(error: Exception, name: str, doing: str) -> Exception:
    """What OpenVINO's error means: `OutOfMemoryError` where it says so, else `EngineError`.

    Args:
        error: OpenVINO's.
        name: of the stage's file.
        doing: what failed, as in "cannot be loaded by".
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # the first line of its errors names a source file of its own
    reason = next((line for line in lines if "Exception from" not in line and not line.startswith("Check '")), "")
    reason = reason or (lines[0] if lines else type(error).__name__)
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in ("bad_alloc", "llocate memory")):
        hint = "export a smaller --T, --V, --height, --width"
        return OutOfMemoryError(f"{name} ran out of memory: {reason}", hint=hint)
    tried = TRIED["openvino"]
    return EngineError(
        f"{name} {doing} OpenVINO {library().__version__}: {reason}",
        hint=f"page4d-export again, or another OpenVINO: {tried.lowest} to {tried.newest} were tried",
    )
