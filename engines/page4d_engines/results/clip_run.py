"""A run over a clip: every window through the pipeline, its results to disk, at the end the report."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from page4d import __version__
from page4d.files import refuse_foreign, save_tensors, staged
from page4d_engines.backend import Backend
from page4d_engines.clip.fit import FitMode
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.names import readable
from page4d_engines.clip.window_reader import WindowInputs, WindowReader, windows
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.pipeline import Pipeline, Result
from page4d_engines.results.overlay import contact_sheet, overlay
from page4d_engines.results.predictions import Predictions
from page4d_engines.results.report import EMBEDDED_WINDOWS, Picture, write_report
from page4d_engines.results.summary import RUN_OUTPUT, SUMMARY, Summary, WindowSummary, mean_of, write_summary

Progress = Callable[[str, float], None]


@dataclass
class ClipRun:
    """A checked run, ready to start."""

    pipeline: Pipeline
    reader: WindowReader
    windows: list[range]
    engines: pathlib.Path
    out: pathlib.Path
    min_confidence: float
    began: float

    @classmethod
    def prepare(
        cls,
        engines: pathlib.Path,
        folder: FrameFolder,
        out: pathlib.Path,
        stride: int | None,
        fit: FitMode | None,
        backend: Backend,
        threads: int | None,
        min_confidence: float,
        began: float,
    ) -> ClipRun:
        """Check everything that can be checked, then load the engines.

        Args:
            engines: the engine folder.
            folder: the clip.
            out: folder to write.
            stride: frames from one window's start to the next's; None is T.
            fit: what becomes of another aspect ratio; None makes it an error.
            backend: what to run on.
            threads: of the backend; None takes every processor.
            min_confidence: least probability of a point in a point cloud.
            began: when the command began, by `time.perf_counter`.

        Raises:
            UsageError: frames, masks or cameras that do not go with the engines.
            EngineError, MissingBackendError, OutOfMemoryError: from loading the engines.
        """
        refuse_foreign(out, RUN_OUTPUT, {"the engine folder": engines, **folder.places})
        checked = EngineFolder.open(engines)
        layout, reads = checked.manifest.layout, checked.manifest.reads
        reader = WindowReader(folder, layout, fit, reads("keypoints"), reads("fundamental"))
        chosen = windows(folder.count, layout.T, layout.T if stride is None else stride)
        sliding = any(later.start < earlier.stop for earlier, later in itertools.pairwise(chosen))
        return cls(
            Pipeline.of(checked, backend, threads, sliding=sliding), reader, chosen, engines, out, min_confidence, began
        )

    def run(self, progress: Progress) -> Summary:
        """Run all windows and write the output folder: whole, or not at all."""
        with staged(self.out, RUN_OUTPUT) as folder:
            return self._run(folder, progress)

    def _run(self, folder: pathlib.Path, progress: Progress) -> Summary:
        manifest = self.pipeline.manifest
        startup = time.perf_counter() - self.began
        totals = dict.fromkeys((entry.name for entry in manifest.stages), 0.0)
        flop = dict.fromkeys(totals, 0)
        done: list[WindowSummary] = []
        sheets: dict[str, list[Picture]] = {}
        writing = 0.0
        result: Result | None = None
        calls = sum(entry.calls for entry in manifest.stages)
        for number, (window, inputs) in enumerate(self.reader.read(self.windows)):
            count = _Counter(
                progress, number * calls, len(self.windows) * calls, f"window {number + 1} of {len(self.windows)}"
            )
            started = time.perf_counter()
            memory = None if result is None else result.memory  # a window begins where the one before it ended
            mask_ext = inputs.mask_ext if manifest.reads("mask_ext") else None
            result = self.pipeline.run(
                inputs.images,
                mask_ext,
                inputs.keypoints,
                inputs.fundamental,
                memory,
                self._shared(number),
                progress=count,
            )
            for stage, seconds in self.pipeline.seconds.items():
                totals[stage] += seconds
                flop[stage] += self.pipeline.flop[stage]
            seconds = time.perf_counter() - started
            started = time.perf_counter()
            predictions = self._predictions(window, inputs, result)
            entry = self._write(folder, window, inputs, result, predictions, seconds)
            done.append(entry)
            if number < EMBEDDED_WINDOWS:
                sheets[entry.name] = list(self._pictures(window, inputs, result, predictions))
            writing += time.perf_counter() - started
        summary = Summary(
            page4d=__version__,
            engines=str(self.engines),
            frames=readable(self.reader.folder.path),
            model=manifest.model,
            weights=manifest.weights,
            layout=dataclasses.asdict(manifest.layout),
            precision=manifest.precision,
            backend=self.pipeline.described,
            cameras=list(self.reader.folder.camera_names),
            windows=done,
            stage_seconds=totals,
            stage_flop=flop,
            decode_seconds=sum(self.reader.decode_seconds),
            write_seconds=writing,
            wall_seconds=time.perf_counter() - self.began,
            startup_seconds=startup,
            buffer_bytes=self.pipeline.plan.total,
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            warnings=[
                *self._warnings(),
                *dict.fromkeys(text for entry in done if entry.predictions for text in entry.predictions.warnings),
            ],
        )
        write_summary(folder / SUMMARY, summary)
        write_report(folder, summary, sheets)
        return summary

    def _shared(self, number: int) -> int:
        """Times that a window shares with the one before, where the pipeline keeps what it made of them."""
        if self.pipeline.plan.encoded is None:
            return 0
        return max(0, self.windows[number - 1].stop - self.windows[number].start) if number else 0

    def _write(
        self,
        folder: pathlib.Path,
        window: range,
        inputs: WindowInputs,
        result: Result,
        predictions: Predictions | None,
        seconds: float,
    ) -> WindowSummary:
        names, cameras = self._names(window), list(self.reader.folder.camera_names)
        width = len(str(self.reader.folder.count - 1))
        name = f"window_{window[0]:0{width}d}-{window[-1]:0{width}d}"
        save_tensors(folder / f"{name}.safetensors", result.tensors())
        pictures: list[str] = []
        means: dict[str, float | None] = {}
        if result.mask is not None:
            pictures = list(_write_overlays(folder, name, cameras, names, inputs.images, result.mask))
            means = {camera: mean_of(result.mask[:, v].ravel().tolist()) for v, camera in enumerate(cameras)}
        written = None
        if predictions is not None:
            place = folder if len(self.windows) == 1 else folder / name
            place.mkdir(exist_ok=True)
            written = predictions.write(
                folder, place, cameras if self.reader.folder.photos else [f"{camera}/{names[0]}" for camera in cameras]
            )
        return WindowSummary(name, names[0], names[-1], f"{name}.safetensors", seconds, means, pictures, written)

    def _pictures(
        self, window: range, inputs: WindowInputs, result: Result, predictions: Predictions | None
    ) -> Iterator[Picture]:
        """Of a window, for the report."""
        if result.mask is not None:
            sheet = contact_sheet(inputs.images, result.mask, self.reader.folder.camera_names, self._names(window))
            cameras = ", ".join(self.reader.folder.camera_names)
            yield Picture(
                sheet,
                f"Rows are cameras: {cameras}. Columns are times. Each cell is a frame, and the frame with the mask"
                " over it.",
            )
        if predictions is not None:
            view, depth = predictions.pictures()
            yield Picture(view, "The point cloud from beside the cameras, which are drawn as frames.")
            yield Picture(depth, "Each photo and its depth: near is bright, far is dark, grey has none.")

    def _predictions(self, window: range, inputs: WindowInputs, result: Result) -> Predictions | None:
        if result.points is None:
            return None
        names = list(self.reader.folder.camera_names)
        fits = [self.reader.fit(window[0], v) for v in range(len(names))]
        return Predictions(inputs.images, result, fits, names, self.min_confidence)

    def _names(self, window: range) -> list[str]:
        return [self.reader.folder.frame_names[t] for t in window]

    def _warnings(self) -> Iterator[str]:
        folder, manifest = self.reader.folder, self.pipeline.manifest
        yield from folder.notes
        if manifest.reads("mask_ext") and folder.mask_files is None:
            yield "no external masks were given: the mask is the network's alone"
        if not manifest.reads("mask_ext") and folder.mask_files is not None:
            yield "the clip's masks were not used: these engines are of a published model, which takes none"
        if manifest.precision.has_16_bits and self.pipeline.backend is Backend.ONNXRUNTIME:
            yield f"this machine computes the {manifest.precision} engines in float32"


def _write_overlays(
    folder: pathlib.Path,
    window: str,
    cameras: list[str],
    names: list[str],
    images: NDArray[np.uint8],
    mask: NDArray[np.float32],
) -> Iterator[str]:
    """Write every frame with its mask over it; the paths, relative to the folder."""
    for v, camera in enumerate(cameras):
        place = folder / "masks" / window / camera
        place.mkdir(parents=True)
        for row, frame in enumerate(names):
            path = place / f"{frame}.png"
            # a fast level: overlays are looked at once, and zlib's best takes longer than a small model
            Image.fromarray(overlay(images[row, v], mask[row, v])).save(path, compress_level=1)
            yield path.relative_to(folder).as_posix()


class _Counter:
    """Turns stage names into progress."""

    def __init__(self, progress: Progress, before: int, total: int, label: str) -> None:
        self.progress, self.done, self.total, self.label = progress, before, total, label

    def __call__(self, stage: str) -> None:
        self.progress(f"{self.label}: {stage}", self.done / self.total)
        self.done += 1
