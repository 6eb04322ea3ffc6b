"""page4d: multi-camera 4D perception as verified engines.

This package holds the reference model and the words that all parts share. Importing it is light: a module is loaded
when one of its names is first asked for, torch with the model.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from page4d.checkpoints.load_report import LoadReport
    from page4d.checkpoints.weights import load, load_weights
    from page4d.config import ModelConfig
    from page4d.errors import Page4DError
    from page4d.layout import Layout
    from page4d.model import Output, Page4D

__version__ = "0.1.0"
__all__ = [
    "Layout",
    "LoadReport",
    "ModelConfig",
    "Output",
    "Page4D",
    "Page4DError",
    "__version__",
    "load",
    "load_weights",
]
_LATE = {
    "Layout": "layout",
    "LoadReport": "checkpoints.load_report",
    "ModelConfig": "config",
    "Output": "model",
    "Page4D": "model",
    "Page4DError": "errors",
    "load": "checkpoints.weights",
    "load_weights": "checkpoints.weights",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"page4d.{_LATE[name]}"), name)
    raise AttributeError(f"module 'page4d' has no attribute {name!r}")
