"""A run over a clip: every window through the pipeline, its results to disk, at the end the report."""

from __future__ import annotations

import itertools
import pathlib
from dataclasses import dataclass, field

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
from page4d_engines.options import Backend, FitMode, PointsSource
from page4d_engines.ort.thread_pool import ThreadPool
from page4d_engines.pipeline import Pipeline, Result
from page4d_engines.results.made_by import MadeBy, inputs_hash
from page4d_engines.results.report import EMBEDDED_WINDOWS, write_report
from page4d_engines.results.run_recorder import RunRecorder
from page4d_engines.results.scene.cloud_choice import CloudChoice
from page4d_engines.results.summary import RUN_OUTPUT, SUMMARY, Summary, finished, write_summary
from page4d_engines.results.window_writer import WindowWriter
from page4d_engines.timing import Stopwatch


@dataclass(frozen=True)
class RunOptions:
    """How to run engines over a clip.

    Attributes:
        stride: frames from one window's start to the next's; None is T.
        fit: what becomes of another aspect ratio; None makes it an error, except for VGGT and PAGE-4D, whose photos are
            then scaled as they are published.
        backend: what to run on.
        pool: threads of ONNX Runtime on the CPU; None takes every CPU.
        min_confidence: least probability of a point in a point cloud, for engines that give one; None, without a
            percentile: 0.1.
        clock: since the run began, for the summary; a command's began with its process.
        points_from: what a point cloud is made from; None: depth with cameras where the engines give these, else the
            points head.
        confidence_percentile: least confidence of a point in a point cloud, as a percentile of all images of a window;
            None: 50 for engines without a probability, 40 for Depth Anything 3.
    """

    stride: int | None = None
    fit: FitMode | None = None
    backend: Backend = Backend.AUTO
    pool: ThreadPool | None = None
    min_confidence: float | None = None
    clock: Stopwatch = field(default_factory=Stopwatch)
    points_from: PointsSource | str | None = None
    confidence_percentile: float | None = None


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
        _choice(manifest, options)  # refused before anything is loaded
        _require_cameras(manifest, folder)
        way = PhotoWay.of(manifest.model)
        reader = WindowReader(folder, layout, options.fit, reads("keypoints"), reads("fundamental"), way)
        stride = layout.T if options.stride is None else options.stride
        made_by = MadeBy(
            manifest=sha256(engines.path / MANIFEST),
            inputs=inputs_hash(folder),
            stride=stride,
            fit=None if options.fit is None else FitMode(options.fit).value,
            points_from=None if options.points_from is None else PointsSource(options.points_from).value,
            min_confidence=options.min_confidence,
            confidence_percentile=options.confidence_percentile,
        )
        return cls(reader=reader, windows=windows(folder.count, layout.T, stride), made_by=made_by)

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
            writer = WindowWriter(folder, self.reader, len(self.windows) == 1, self.choice)
            calls, count = sum(entry.calls for entry in self.pipeline.manifest.stages), len(self.windows)
            result: Result | None = None
            for number, (window, inputs) in enumerate(self.reader.read(self.windows)):
                part = progress.part(number / count, (number + 1) / count, calls, f"window {number + 1} of {count}: ")
                lap = Stopwatch()
                result = self._run_window(number, inputs, result, part)
                seconds = lap.lap()
                written = writer.write(window, inputs, result, seconds, with_pictures=number < EMBEDDED_WINDOWS)
                recorder.add(*written, result.timing, lap.lap())
            summary = recorder.summary()
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
            memory=None if before is None else before.memory,
            shared=self._shared(number),
            progress=progress.step,
        )

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
    return CloudChoice.of(manifest, options.points_from, options.min_confidence, options.confidence_percentile)


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
