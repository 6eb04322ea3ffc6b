"""Every format of a finished run: who writes it, where it lies, and what the summary says of it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from page4d.system.progress import Progress
from page4d_engines.options import Format
from page4d_engines.results.finished.finished_run import FinishedRun, Scene
from page4d_engines.results.formats.colmap.write_colmap import write_colmap
from page4d_engines.results.formats.gltf import write_glb
from page4d_engines.results.formats.nerfstudio import write_nerfstudio
from page4d_engines.results.formats.npz import write_npz
from page4d_engines.results.formats.written import Written
from page4d_engines.results.scene.prediction_summary import PredictionSummary
from page4d_engines.results.summary import Summary
from page4d_engines.results.world.scene_files import SceneFiles, with_predictions

Writer = Callable[[pathlib.Path, Scene, "Placing"], Written]
"""Writes a scene into an existing folder."""


@dataclass(frozen=True)
class Placing:
    """What writers know beside the scene.

    Attributes:
        place: where the folder will lie when it is finished.
        shared_camera: whether photos of one folder and one size share a camera in a COLMAP model.
    """

    place: pathlib.Path
    shared_camera: bool


WRITERS: dict[Format, Writer] = {
    Format.GLB: lambda folder, scene, placing: write_glb(folder, scene),
    Format.COLMAP: lambda folder, scene, placing: write_colmap(folder, scene, placing.shared_camera),
    Format.NERFSTUDIO: lambda folder, scene, placing: write_nerfstudio(folder, scene, placing.place),
    Format.NPZ: lambda folder, scene, placing: write_npz(folder, scene),
}
"""All but `Format.PLY`, which the summary says more of."""


def write_formats(
    run: FinishedRun,
    formats: Sequence[Format],
    out: pathlib.Path,
    progress: Progress,
    place: pathlib.Path | None = None,
    shared_camera: bool = False,
) -> Summary:
    """Write formats of all scenes of a run.

    Args:
        run: to be written.
        formats: which.
        out: an existing folder; of a run with several scenes each has a folder in it, named as its window.
        progress: of it.
        place: where `out` will lie when it is finished; None: where it is.
        shared_camera: whether photos of one folder and one size share a camera in a COLMAP model.

    Returns:
        The run's summary, which lists the files, and what they lack among its warnings.

    Raises:
        UsageError: a photo or a window's file is gone or damaged.
    """
    summary, scenes = run.summary, run.scenes()
    steps = progress.part(0, 1, len(scenes) * len(formats))
    for scene in scenes:
        folder = out / scene.name
        folder.mkdir(exist_ok=True)
        placing = Placing((place or out) / scene.name, shared_camera)
        for kind in formats:
            steps.step(f"{scene.name + ': ' if scene.name else ''}writing {kind}")
            if kind is Format.PLY:
                summary = SceneFiles.write(folder, scene).listed_in(summary, scene)
                continue
            written = WRITERS[kind](folder, scene, placing)
            summary = _with_files(summary, scene, [path.relative_to(out).as_posix() for path in written.files])
            warnings = list(dict.fromkeys([*summary.warnings, *written.warnings]))
            summary = msgspec.structs.replace(summary, warnings=warnings)
    return summary


def _with_files(summary: Summary, scene: Scene, files: list[str]) -> Summary:
    """With the files of a scene: of its window, or where windows share a world, of the run."""
    if len(scene.windows) > 1:
        return msgspec.structs.replace(summary, formats=sorted({*summary.formats, *files}))

    def with_files(predictions: PredictionSummary, is_first: bool) -> PredictionSummary:
        return msgspec.structs.replace(predictions, formats=sorted({*predictions.formats, *files}))

    return with_predictions(summary, scene, with_files)
