"""page4d: multi-camera 4D perception as verified engines.

This package holds the reference model and what all packages share: layout, configuration, manifest, checkpoints,
errors. Importing it is light: a module is loaded when one of its names is first used, torch with the model.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from page4d.checkpoints.weights import load, load_weights
    from page4d.config import ModelConfig
    from page4d.errors import Page4DError
    from page4d.layout import Layout
    from page4d.manifest import LoadReport
    from page4d.model import Output, Page4D

    __version__: str

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
    "LoadReport": "manifest",
    "ModelConfig": "config",
    "Output": "model",
    "Page4D": "model",
    "Page4DError": "errors",
    "load": "checkpoints.weights",
    "load_weights": "checkpoints.weights",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _LATE:
        import importlib

        return getattr(importlib.import_module(f"page4d.{_LATE[name]}"), name)
    raise AttributeError(f"module 'page4d' has no attribute {name!r}")


def _version() -> str:
    """The installed version, which pyproject.toml states; `0+unknown` in a checkout that is only on the path."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("page4d")
    except PackageNotFoundError:
        return "0+unknown"
