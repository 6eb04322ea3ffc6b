"""The export: the model becomes one ONNX file per stage, verified against the model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from page4d_export.export_request import export
    from page4d_export.stage import Stage, stages

__all__ = ["Stage", "export", "stages"]


def __getattr__(name: str) -> Any:
    # late: stages need torch, which the command line does not, and `import page4d_export` is light
    if name == "export":
        from page4d_export.export_request import export

        return export
    if name in __all__:
        from page4d_export import stage

        return getattr(stage, name)
    raise AttributeError(f"module 'page4d_export' has no attribute {name!r}")
