"""page4d: multi-camera 4D perception as verified engines.

This package holds the reference model and the words that all parts share. Importing it is light: torch is loaded when the
model is first asked for.
"""

from typing import TYPE_CHECKING, Any

from page4d.config import ModelConfig
from page4d.errors import Page4DError
from page4d.layout import Layout

if TYPE_CHECKING:
    from page4d.load_report import LoadReport
    from page4d.model import Output, Page4D
    from page4d.weights import load, load_weights

__version__ = "0.1.0"
__all__ = ["Layout", "LoadReport", "ModelConfig", "Output", "Page4D", "Page4DError", "__version__", "load", "load_weights"]
_LATE = {"Page4D": "model", "Output": "model", "LoadReport": "load_report", "load": "weights", "load_weights": "weights"}  # most need torch


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"page4d.{_LATE[name]}"), name)
    raise AttributeError(f"module 'page4d' has no attribute {name!r}")
