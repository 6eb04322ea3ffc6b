"""`Conversion`: a finished run written in more formats, in its own folder or in another."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from page4d import __version__
from page4d.files import OutputKind, link_or_copy, refuse_foreign, staged, write_atomically
from page4d.system.plain_text import json_document
from page4d.system.progress import Progress
from page4d_engines.clip.names import readable
from page4d_engines.options import Format
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.formats.format_choice import names_of, refuse_impossible
from page4d_engines.results.formats.write_formats import write_formats
from page4d_engines.results.report import EMBEDDED_WINDOWS, Picture, write_report
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.scene.given_heads import GivenHeads
from page4d_engines.results.scene.image_names import ImageNames
from page4d_engines.results.scene.predictions import Predictions
from page4d_engines.results.summary import RUN_OUTPUT, SUMMARY, Summary, WindowSummary, write_summary
from page4d_engines.results.window_writer import window_pictures
from page4d_engines.results.world.scene_files import SceneFiles

LISTING = "formats.json"
"""Lists the files of formats in a folder of their own."""


class FormatListing(msgspec.Struct, frozen=True):
    """What `formats.json` has: the formats that were written of a run into a folder of their own."""

    page4d: str
    """Version of the runtime."""
    run: str
    """Output folder of the run, as it was given."""
    formats: list[str]
    files: list[str]
    """Relative to the folder, with `/`."""


def _listed(folder: pathlib.Path) -> list[str] | None:
    try:
        return msgspec.json.decode((folder / LISTING).read_bytes(), type=FormatListing).files
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


CONVERTED = OutputKind("formats that page4d convert wrote", LISTING, _listed)


@dataclass(frozen=True)
class Conversion:
    """A checked conversion, ready to start.

    Attributes:
        run: to be written.
        formats: that are written: those asked for, and in the run's own folder, where points or the world have changed,
            those that it has.
        out: where to.
        shared_camera: whether photos of one folder and one size share a camera in a COLMAP model.
        moved: whether the run's world is another than that of its files on disk.
    """

    run: FinishedRun
    formats: tuple[Format, ...]
    out: pathlib.Path
    shared_camera: bool
    moved: bool = False

    @classmethod
    def prepare(
        cls,
        run: FinishedRun,
        formats: Sequence[Format],
        out: pathlib.Path | None = None,
        shared_camera: bool | None = None,
        changed: bool = False,
    ) -> Conversion:
        """Check everything before anything is written.

        Args:
            run: to be written, with the options of its clouds.
            formats: which; none of them: those that it has.
            out: a folder of its own for them; None: the run's.
            shared_camera: as the attribute; None: as in the run.
            changed: whether the run's summary is another than that on disk.

        Raises:
            UsageError: the run's engines lack what a format is made of; `out`, or the run's folder, holds something
                else, or cannot be written.
        """
        made_by = run.summary.made_by
        assert made_by is not None
        had = tuple(map(Format, made_by.formats))
        kinds = tuple(formats) or had
        is_inside = out is None or os.path.realpath(out) == os.path.realpath(run.path)
        moved = changed
        changed = changed or run.options != made_by.cloud or shared_camera not in (None, made_by.shared_camera)
        if is_inside and changed:
            kinds = (*kinds, *had)
        kinds = tuple(map(Format, names_of(kinds)))
        shared = made_by.shared_camera if shared_camera is None else shared_camera
        for window in run.summary.windows[:1]:
            geometry = run.geometry(window)
            refuse_impossible(kinds, GivenHeads.of_result(geometry.result, run.summary.model), geometry.choice)
        if out is None or is_inside:
            refuse_foreign(run.path, RUN_OUTPUT, run.clip.places)
            return cls(run, kinds, run.path, shared, moved)
        refuse_foreign(out, CONVERTED, {"the run": run.path, **run.clip.places})
        return cls(run, kinds, out, shared)

    @property
    def is_inside(self) -> bool:
        """Whether the run's own folder is written."""
        return self.out == self.run.path

    def write(self, progress: Progress) -> Summary:
        """Write the formats, all of them or none; the summary of the run that lists them.

        Raises:
            UsageError: a photo or a window's file is gone or damaged.
        """
        kind = RUN_OUTPUT if self.is_inside else CONVERTED
        with staged(self.out, kind) as folder:
            summary = write_formats(self.run, self.formats, folder, progress, self.out, self.shared_camera)
            if self.is_inside and self.moved and Format.PLY not in self.formats:
                summary = self._with_cameras(folder, summary)
            if self.is_inside:
                return self._write_run(folder, summary)
            files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
            listing = FormatListing(
                page4d=__version__,
                run=readable(self.run.path),
                formats=list(names_of(self.formats)),
                files=files,
            )
            write_atomically(folder / LISTING, json_document(listing))
            return summary

    def _with_cameras(self, folder: pathlib.Path, summary: Summary) -> Summary:
        """Write `cameras.json` of every scene, which comes with `points.ply` otherwise."""
        for scene in self.run.scenes():
            summary = SceneFiles.write(folder / scene.name, scene, with_cloud=False).listed_in(summary, scene)
        return summary

    def _write_run(self, folder: pathlib.Path, summary: Summary) -> Summary:
        """Add the run's other files, then the summary that lists all of them."""
        made_by = self.run.summary.made_by
        assert made_by is not None
        options = {name: getattr(self.run.options, name) for name in CloudOptions.__struct_fields__}
        formats = names_of((*self.formats, *made_by.formats))
        summary = msgspec.structs.replace(
            summary,
            windows=[self._with_choice(window) for window in summary.windows],
            made_by=msgspec.structs.replace(made_by, formats=formats, shared_camera=self.shared_camera, **options),
        )
        pictures = dict(_pictures(self.run))
        for path in summary.files:
            if not (folder / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(self.run.path / path, folder / path)
        write_report(folder, summary, pictures)
        write_summary(folder / SUMMARY, summary)
        return summary

    def _with_choice(self, window: WindowSummary) -> WindowSummary:
        """With what the options say that its cloud is made from."""
        geometry = self.run.geometry(window)
        choice, predictions = geometry.choice, window.predictions
        if choice is None or predictions is None:
            return window
        return msgspec.structs.replace(
            window,
            predictions=msgspec.structs.replace(
                predictions,
                points_from=str(choice.source),
                confidence=choice.confidence,
                percentile=choice.threshold.percentile,
                threshold=geometry.least if math.isfinite(geometry.least) else None,
            ),
        )


def _pictures(run: FinishedRun) -> Iterator[tuple[str, list[Picture]]]:
    """For the report, of its first windows, by their names."""
    windows, clip = run.summary.windows[:EMBEDDED_WINDOWS], run.clip
    spans = [run.timesteps(window) for window in windows]
    for window, (span, inputs) in zip(windows, run.reader().read(spans), strict=True):
        geometry, times = run.geometry(window), [clip.frame_names[t] for t in span]
        predictions = None
        if Predictions.are_in(geometry.result):
            names = ImageNames.of(clip.camera_names, times, clip.photos)
            predictions = Predictions(inputs.images, geometry, names, inputs.present)
        yield window.name, list(window_pictures(inputs, geometry.result, predictions, clip.camera_names, times))
