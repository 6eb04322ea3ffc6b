"""Every format of a finished run: who writes it, where it lies, and what the summary says of it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import msgspec

from page4d.system.progress import Progress
from page4d_engines.options import Format
from page4d_engines.results.finished.finished_run import FinishedRun, Scene
from page4d_engines.results.formats.colmap.write_colmap import write_colmap
from page4d_engines.results.formats.gltf import write_glb
from page4d_engines.results.formats.nerfstudio import write_nerfstudio
from page4d_engines.results.formats.npz import write_npz
from page4d_engines.results.formats.writing import DEFAULTS, FormatOptions, Written
from page4d_engines.results.scene.prediction_summary import PredictionSummary
from page4d_engines.results.summary import Summary
from page4d_engines.results.world.scene_files import SceneFiles, with_predictions

Writer = Callable[[pathlib.Path, Scene, FormatOptions], Written]
"""Writes a scene into an existing folder."""

WRITERS: dict[Format, Writer] = {
    Format.GLB: write_glb,
    Format.COLMAP: write_colmap,
    Format.NERFSTUDIO: write_nerfstudio,
    Format.NPZ: write_npz,
}
"""All but `Format.PLY`, which the summary says more of."""


def write_formats(
    run: FinishedRun,
    formats: Sequence[Format],
    out: pathlib.Path,
    progress: Progress,
    options: FormatOptions = DEFAULTS,
) -> Summary:
    """Write formats of all scenes of a run.

    Args:
        run: to be written.
        formats: which.
        out: an existing folder; of a run with several scenes each has a folder in it, named as its window.
        progress: of it.
        options: of the formats.

    Returns:
        The run's summary, which lists the files, and what is not in them as warnings.

    Raises:
        UsageError: a photo or a window's file is gone or damaged.
    """
    summary, scenes = run.summary, run.scenes()
    steps = progress.part(0, 1, len(scenes) * len(formats))
    for scene in scenes:
        place = out / scene.name
        place.mkdir(exist_ok=True)
        for kind in formats:
            steps.step(f"{scene.name + ': ' if scene.name else ''}writing {kind}")
            if kind is Format.PLY:
                summary = SceneFiles.write(place, scene).listed_in(summary, scene)
            else:
                written = WRITERS[kind](place, scene, options.inside(scene.name))
                summary = _with_files(summary, scene, [path.relative_to(out).as_posix() for path in written.files])
                summary = _with_warnings(summary, scene, written.warnings)
    return summary


def _with_files(summary: Summary, scene: Scene, files: list[str]) -> Summary:
    """With the files of a scene: of its window, or where windows share a world, of the run."""
    if len(scene.windows) > 1:
        return msgspec.structs.replace(summary, formats=sorted({*summary.formats, *files}))

    def with_files(predictions: PredictionSummary, is_first: bool) -> PredictionSummary:
        return msgspec.structs.replace(predictions, formats=sorted({*predictions.formats, *files}))

    return with_predictions(summary, scene, with_files)


def _with_warnings(summary: Summary, scene: Scene, warnings: Sequence[str]) -> Summary:
    """With sentences that it does not have yet."""
    where = f"{scene.name}: " if scene.name else ""
    sentences = [*summary.warnings, *(where + warning for warning in warnings)]
    return msgspec.structs.replace(summary, warnings=list(dict.fromkeys(sentences)))
