"""The start of a command, before its imports.

Standard streams are open; signals and failed imports end the command with a message, without a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import NoReturn

from page4d.errors import ExitCode
from page4d.system.interrupts import end_at_once

_VERBOSE = ("-v", "--verbose")


def start(module: str, function: str) -> None:
    """Import a command's module, which takes most of a second, and call its entry point."""
    begin()
    try:
        entry = getattr(importlib.import_module(module), function)
    except MemoryError:
        _end(ExitCode.OUT_OF_MEMORY, "out of memory while the program was loaded")
    except (ImportError, OSError, RuntimeError) as error:  # a damaged installation, or a limit (ulimit)
        what = f"the program cannot be loaded: {' '.join(str(error).split())}"
        _end(ExitCode.FAILURE, f"{what}\n  try:     page4d's requirements anew, or higher limits (ulimit -a)")
    entry()


def begin() -> None:
    """Prepare streams, signals and warnings; may be called twice."""
    _open_streams()
    end_at_once()
    # other libraries' warnings are for their developers, and PYTHONWARNINGS=error would make exceptions of them
    warnings.simplefilter("default" if any(flag in sys.argv[1:] for flag in _VERBOSE) else "ignore")


def _open_streams() -> None:
    """Open closed standard streams (`2>&-`, daemons) on the null device: no later file shall get their numbers."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, so mostly the stream's own
            mode = "r" if descriptor == 0 else "w"
            stream = open(opened, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, stream)
        elif descriptor and hasattr(getattr(sys, name), "reconfigure"):
            # characters that the terminal's encoding lacks are escaped
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _end(code: int, message: str) -> NoReturn:
    sys.stderr.write(f"page4d: {message}\n")
    sys.exit(code)
