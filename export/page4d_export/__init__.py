"""The export: the model becomes one ONNX file per stage, verified against the model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from page4d_export.stage import Stage, stages

__all__ = ["Stage", "stages"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from page4d_export import stage  # late: it needs torch, the command line does not

        return getattr(stage, name)
    raise AttributeError(f"module 'page4d_export' has no attribute {name!r}")
