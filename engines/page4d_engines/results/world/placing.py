"""What a summary says of a window, in another world."""

from __future__ import annotations

import msgspec
import numpy as np

from page4d_engines.results.scene.prediction_summary import CameraSummary, PredictionSummary
from page4d_engines.results.summary import WindowSummary
from page4d_engines.results.world.similarity import Similarity


def placed(window: WindowSummary, change: Similarity, unit: str | None = None) -> WindowSummary:
    """A window in another world: lengths and positions of the summary, and `world`, which readers of its files apply.

    Args:
        window: as it is.
        change: from the world that it is in.
        unit: of the lengths there; None: as before.
    """
    world = change.after(Similarity.from_numbers(window.world))
    predictions = None if window.predictions is None else _placed(window.predictions, change, unit)
    return msgspec.structs.replace(window, world=world.numbers, predictions=predictions)


def _placed(predictions: PredictionSummary, change: Similarity, unit: str | None) -> PredictionSummary:
    scale = predictions.depth_scale
    return msgspec.structs.replace(
        predictions,
        depth_scale=None if scale is None else scale * change.scale,
        rig={name: _moved(camera, change) for name, camera in predictions.rig.items()},
        unit=unit or predictions.unit,
    )


def _moved(camera: CameraSummary, change: Similarity) -> CameraSummary:
    position = np.array([np.nan if value is None else value for value in camera.position])
    moved = [float(value) if np.isfinite(value) else None for value in change.of_points(position)]
    return msgspec.structs.replace(camera, position=moved)
