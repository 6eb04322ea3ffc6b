"""TensorRT's words: kept, so that layers can be read back and failures explained, and warnings passed on."""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType
from typing import Any

_LOG = logging.getLogger("page4d.tensorrt")
_HARMLESS = ("not found in plugin node",)  # an option that is off: see page4d_plugins.node.FIELDS


def make_log(trt: ModuleType) -> Any:
    """An ILogger with `text`, everything that was said, and `errors`, in order."""
    return _log_class(trt)()


@cache
def _log_class(trt: ModuleType) -> Any:
    levels = {trt.ILogger.INTERNAL_ERROR: logging.ERROR, trt.ILogger.ERROR: logging.ERROR, trt.ILogger.WARNING: logging.WARNING}

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps all; tells the project's log of warnings, and of the rest with -v."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.errors: list[str] = []

        @property
        def text(self) -> str:
            return "\n".join(self.lines)

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(message)
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(message)
            elif level == logging.WARNING and not any(words in message for words in _HARMLESS):
                _LOG.warning("%s", message)

    return Log
