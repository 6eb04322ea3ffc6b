"""The engines: loaded from an engine folder and chained over buffers allocated once."""

import os
from typing import TYPE_CHECKING, Any

# a robot's runtime reports to nobody; ONNX Runtime reads this when it is imported, and would otherwise keep an
# identifier in the home folder
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from page4d_engines.backend import Backend
    from page4d_engines.pipeline import Pipeline, Result

__all__ = ["Backend", "Pipeline", "Result"]
# loaded on first use: the commands' entry point need not wait for numpy
_LATE = {"Backend": "backend", "Pipeline": "pipeline", "Result": "pipeline"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"page4d_engines.{_LATE[name]}"), name)
    raise AttributeError(f"module 'page4d_engines' has no attribute {name!r}")
