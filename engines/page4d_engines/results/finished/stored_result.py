"""A window's results, read back from its `.safetensors` file."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open

from page4d.errors import UsageError
from page4d.manifest import PREDICTIONS
from page4d_engines.pipeline import LengthUnit, Result
from page4d_engines.results.scene.given_heads import points_frame_of

_READ = ("mask", *PREDICTIONS, "intrinsics")


def stored_result(path: pathlib.Path, model: Mapping[str, Any], unit: str | None) -> Result:
    """Mask and predictions of a window; the layers, which are most of a file, are not read.

    Args:
        path: of the file.
        model: as the manifest has it.
        unit: of the window's lengths, as `PredictionSummary.unit`.

    Raises:
        UsageError: the file is gone or damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in sorted({*_READ}.intersection(file.keys()))}
    except (OSError, SafetensorError) as error:
        raise UsageError(f"a window's results cannot be read: {error}", got=path, hint="page4d-run again") from None
    return Result(
        layers={},
        memory=None,
        points_frame=points_frame_of(model) if "points" in arrays else None,
        unit=None if unit is None else LengthUnit(unit),
        **{"mask": None, **arrays},
    )
