"""A run over a clip: every window through the pipeline, its results to disk, at the end the report."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d.cameras import Camera
from page4d.errors import UsageError
from page4d.files import refuse_foreign, sha256, staged
from page4d.manifest import Manifest
from page4d.manifest_checks.manifest_file import MANIFEST
from page4d.system.progress import Progress
from page4d_engines.clip.fit import PhotoWay
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.window_reader import WindowInputs, WindowReader, windows
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.options import FitMode, Format, PointsSource
from page4d_engines.pipeline import Pipeline, Result
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.formats.format_choice import names_of, refuse_impossible
from page4d_engines.results.formats.write_formats import write_formats
from page4d_engines.results.made_by import MadeBy, inputs_hash
from page4d_engines.results.report import EMBEDDED_WINDOWS, write_report
from page4d_engines.results.run_options import RunOptions as RunOptions
from page4d_engines.results.run_recorder import RunRecorder
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.scene.given_heads import GivenHeads
from page4d_engines.results.scene.window_geometry import WindowGeometry
from page4d_engines.results.summary import RUN_OUTPUT, SUMMARY, Summary, finished, write_summary
from page4d_engines.results.window_writer import WindowWriter
from page4d_engines.results.world.run_world import RunWorld, aligned_stride, check_loop
from page4d_engines.timing import Stopwatch


@dataclass(frozen=True)
class ClipPlan:
    """What a run over a clip will do, checked as far as that needs no loaded engines.

    Attributes:
        reader: of the clip.
        windows: their frames.
        made_by: what the results will depend on.
    """

    reader: WindowReader
    windows: list[range]
    made_by: MadeBy

    @classmethod
    def of(cls, engines: EngineFolder, folder: FrameFolder, options: RunOptions) -> ClipPlan:
        """Of a clip, with the engines and options that it will be run with.

        Raises:
            UsageError: frames, masks or cameras that do not go with the engines, or a source or confidence of points
                that these do not give.
        """
        manifest = engines.manifest
        layout, reads = manifest.layout, manifest.reads
        refuse_impossible(options.formats, GivenHeads.of(manifest), _choice(manifest, options))
        _require_cameras(manifest, folder)
        if manifest.metres_by_focal_length and folder.cameras is None and folder.calibration:
            folder = dataclasses.replace(folder, cameras=folder.calibration)
        way = PhotoWay.of(manifest.model)
        reader = WindowReader(folder, layout, options.fit, reads("keypoints"), reads("fundamental"), way)
        stride = _stride(layout.T, options)
        points_from = None if options.points_from is None else PointsSource(options.points_from).value
        made_by = MadeBy(
            manifest=sha256(engines.path / MANIFEST),
            inputs=inputs_hash(folder),
            stride=stride,
            fit=None if options.fit is None else FitMode(options.fit).value,
            formats=names_of(options.formats),
            shared_camera=options.shared_camera,
            align=options.align,
            close_loop=options.close_loop,
            gaps=manifest.takes_present,
            metric=None if options.metric is None else options.metric.digest,
            **(msgspec.structs.asdict(options.cloud) | {"points_from": points_from}),
        )
        spans = windows(folder.count, layout.T, stride)
        _check_world(manifest, folder, options, spans)
        return cls(reader=reader, windows=spans, made_by=made_by)

    @property
    def sliding(self) -> bool:
        """Whether windows overlap."""
        return any(later.start < earlier.stop for earlier, later in itertools.pairwise(self.windows))


@dataclass
class ClipRun:
    """A checked run, ready to start."""

    pipeline: Pipeline
    reader: WindowReader
    windows: list[range]
    engines: pathlib.Path
    out: pathlib.Path
    options: RunOptions
    made_by: MadeBy
    choice: CloudChoice | None = field(init=False)
    """What point clouds are made from; None: the engines give none."""

    def __post_init__(self) -> None:
        self.choice = _choice(self.pipeline.manifest, self.options)

    @classmethod
    def prepare(
        cls,
        engines: EngineFolder,
        folder: FrameFolder,
        out: pathlib.Path,
        options: RunOptions | None = None,
        pipeline: Pipeline | None = None,
    ) -> ClipRun:
        """Check everything that can be checked, then load the engines.

        Args:
            engines: the engine folder.
            folder: the clip.
            out: folder to write.
            options: how to run; None is `RunOptions()`.
            pipeline: the engines of the folder, loaded already and kept from clip to clip; the backend and threads of
                `options` then count for nothing. None loads them.

        Raises:
            UsageError: frames, masks or cameras that do not go with the engines, or a source or confidence of points
                that these do not give; `out` holds something else than a run.
            EngineError, MissingBackendError, OutOfMemoryError: from loading the engines.
        """
        options = options or RunOptions()
        refuse_foreign(out, RUN_OUTPUT, {"the engine folder": engines.path, **folder.places})
        plan = ClipPlan.of(engines, folder, options)
        if pipeline is None:
            pipeline = Pipeline.of(engines, options.backend, options.pool, sliding=plan.sliding)
        return cls(
            pipeline=pipeline,
            reader=plan.reader,
            windows=plan.windows,
            engines=engines.path,
            out=out,
            options=options,
            made_by=plan.made_by,
        )

    def run(self, progress: Progress) -> Summary:
        """Run all windows and write the output folder: whole, or not at all."""
        with staged(self.out, RUN_OUTPUT) as folder:
            recorder = RunRecorder(
                pipeline=self.pipeline,
                reader=self.reader,
                engines=str(self.engines),
                clock=self.options.clock,
                choice=self.choice,
                made_by=self.made_by,
            )
            world = RunWorld(self.options.align, self.options.close_loop, self.options.metric)
            writer = WindowWriter(
                folder=folder,
                reader=self.reader,
                alone=len(self.windows) == 1,
                choice=self.choice,
                options=self.options.cloud,
                writes_cloud=Format.PLY in self.options.formats and not world.changes,
                writes_cameras=not world.changes,
            )
            calls = sum(entry.calls for entry in self.pipeline.manifest.stages)
            count = len(self.windows) + self.options.close_loop
            result: Result | None = None
            for number, (window, inputs) in enumerate(self.reader.read(self.windows)):
                part = progress.part(number / count, (number + 1) / count, calls, f"window {number + 1} of {count}: ")
                lap = Stopwatch()
                result = self._run_window(number, inputs, result, part)
                seconds = lap.lap()
                written, pictures = writer.write(
                    window, inputs, result, seconds, with_pictures=number < EMBEDDED_WINDOWS
                )
                if world.align:
                    world.add(written.name, window, inputs, writer.geometry(window, result))
                recorder.add(written, pictures, result.timing, lap.lap())
            if world.close:
                assert result is not None
                self._close_loop(world, inputs, result, progress.part((count - 1) / count, 1, calls, "the loop: "))
            summary = recorder.summary()
            lap = Stopwatch()
            summary = world.finish(folder, summary, self.reader, with_cloud=Format.PLY in self.options.formats)
            summary = self._with_formats(folder, summary, progress)
            summary = msgspec.structs.replace(
                summary,
                write_seconds=summary.write_seconds + lap.lap(),
                wall_seconds=self.options.clock.seconds,
            )
            write_summary(folder / SUMMARY, summary)
            write_report(folder, summary, recorder.pictures)
            return summary

    def _run_window(self, number: int, inputs: WindowInputs, before: Result | None, progress: Progress) -> Result:
        """One window, which begins with the memory that the one before it ended with."""
        return self.pipeline.run(
            inputs.images,
            mask_ext=inputs.mask_ext if self.pipeline.manifest.reads("mask_ext") else None,
            keypoints=inputs.keypoints,
            cameras=self._cameras(number, inputs),
            present=inputs.present if self.pipeline.manifest.takes_present else None,
            memory=None if before is None else before.memory,
            shared=self._shared(number),
            progress=progress.step,
        )

    def _with_formats(self, folder: pathlib.Path, summary: Summary, progress: Progress) -> Summary:
        """Write the formats that are made of the finished run; `points.ply` is written with each window."""
        formats = [kind for kind in self.options.formats if kind is not Format.PLY]
        if not formats:
            return summary
        run = FinishedRun.of(folder, summary, self.reader.folder)
        return write_formats(run, formats, folder, progress, self.out, self.options.shared_camera)

    def _close_loop(self, world: RunWorld, last: WindowInputs, before: Result, progress: Progress) -> None:
        """Run the window that sees the clip's last and first frames."""
        inputs = world.closing_inputs(last, self.reader.layout)
        result = self._run_window(0, inputs, before, progress)
        frames = world.closing_frames(self.reader.folder.count, self.reader.layout.T)
        fits = [self.reader.fit(t, v) for t in frames for v in range(self.reader.layout.V)]
        world.close_ring(self.reader, WindowGeometry(result, fits, self.choice, self.options.cloud))

    def _cameras(self, number: int, inputs: WindowInputs) -> dict[str, Camera] | NDArray[np.float32] | None:
        """What of the clip's cameras the engines read, or need for metres."""
        manifest = self.pipeline.manifest
        if manifest.knows_cameras or manifest.metres_by_focal_length:
            return self.reader.rig(self.windows[number].start) or None
        return inputs.fundamental

    def _shared(self, number: int) -> int:
        """Timesteps that a window shares with the one before, where the pipeline keeps their encoded tokens."""
        if self.pipeline.plan.encoded is None or number == 0:
            return 0
        return max(0, self.windows[number - 1].stop - self.windows[number].start)


def _choice(manifest: Manifest, options: RunOptions) -> CloudChoice | None:
    return CloudChoice.asked(GivenHeads.of(manifest), options.cloud)


def _stride(T: int, options: RunOptions) -> int:
    """Of the windows."""
    if options.align:
        return aligned_stride(T, options.stride)
    return T if options.stride is None else options.stride


def _check_world(manifest: Manifest, folder: FrameFolder, options: RunOptions, spans: list[range]) -> None:
    """What the world of the results takes is there.

    Raises:
        UsageError: engines without points, for windows that are to be aligned; too few windows for a loop; a source of
            metres that has nothing to do with the clip.
    """
    if options.align and _choice(manifest, options) is None:
        raise UsageError(
            "--align brings windows together by their points, and these engines give none in the world",
            got=manifest.model,
            allowed="engines with points and cameras, or depth and cameras",
            hint="page4d-export with these heads",
        )
    if options.close_loop:
        check_loop(spans, options.align)
    if options.metric is not None:
        options.metric.check(folder, in_one_world=options.align or len(spans) == 1)


def _require_cameras(manifest: Manifest, folder: FrameFolder) -> None:
    """A clip for engines with known cameras has them."""
    if manifest.knows_cameras and folder.cameras is None:
        raise UsageError(
            "the engines were exported with --known-cameras, and the clip has none",
            allowed="cameras.json beside the frames",
            hint="--cameras FILE",
        )


def run_clip(
    engines: EngineFolder,
    folder: FrameFolder,
    out: pathlib.Path,
    options: RunOptions,
    resume: bool,
    progress: Progress,
) -> Summary:
    """Run a clip; or with `resume`, where `out` has the results that it would write, read their summary.

    Raises:
        As `ClipRun.prepare`.
    """
    if resume and (earlier := finished(out, ClipPlan.of(engines, folder, options).made_by)) is not None:
        return earlier
    return ClipRun.prepare(engines, folder, out, options).run(progress)
