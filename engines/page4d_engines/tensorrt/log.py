"""TensorRT's log: kept, so that layers can be read back and failures explained, and warnings passed on."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType
from typing import Any

_LOG = logging.getLogger("page4d.tensorrt")
_HARMLESS = ("not found in plugin node",)  # an option that is off: see page4d_plugins.node.FIELDS
_KEPT = 20  # errors


@cache
def log_of(trt: ModuleType) -> Any:
    """The process's one ILogger for a TensorRT module; it keeps the latest errors, and from `begin` to `end` all lines.

    One, and never freed: TensorRT keeps a builder's logger for whatever is made while that builder lives, and calls it
    after it is gone.
    """
    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
    }

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Tells the project's log of warnings, and of the rest with -v."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] | None = None
            self.errors: list[str] = []

        def begin(self) -> None:
            """Forget the errors, and keep every line from here on."""
            self.lines, self.errors = [], []

        def end(self) -> str:
            """All lines since `begin`; from here on only errors are kept."""
            text = "\n".join(self.lines or ())
            self.lines = None
            return text

        def log(self, severity: Any, message: str) -> None:
            if self.lines is not None:
                self.lines.append(message)
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors = [*self.errors[1 - _KEPT :], message]
            elif level == logging.WARNING and not any(part in message for part in _HARMLESS):
                _LOG.warning("%s", message)

    return Log()
