"""A run over a clip: every window through the pipeline, its results to disk, at the end the report."""

from __future__ import annotations

import pathlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from page4d import __version__
from page4d.files import refuse_foreign, save_tensors, staged
from page4d_engines.fit import FitMode
from page4d_engines.folder import EngineFolder
from page4d_engines.frames import FrameFolder
from page4d_engines.overlay import contact_sheet, overlay
from page4d_engines.pipeline import Backend, Pipeline, Result
from page4d_engines.report import EMBEDDED_WINDOWS, write_report
from page4d_engines.summary import SUMMARY, Summary, WindowSummary, mean_of, write_summary
from page4d_engines.windows import WindowInputs, WindowReader, windows

Progress = Callable[[str, float], None]


@dataclass
class ClipRun:
    """A checked run, ready to start."""

    pipeline: Pipeline
    reader: WindowReader
    windows: list[range]
    engines: pathlib.Path
    out: pathlib.Path
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
            began: when the command began, by `time.perf_counter`.

        Raises:
            UsageError: frames, masks or cameras that do not go with the engines.
            EngineError, MissingBackendError, OutOfMemoryError: from loading the engines.
        """
        refuse_foreign(out, SUMMARY, "the output of a run")
        checked = EngineFolder.open(engines)
        layout, reads = checked.manifest.shape, checked.manifest.reads
        reader = WindowReader(folder, layout, fit, reads("keypoints"), reads("fundamental"))
        chosen = windows(folder.count, layout.T, layout.T if stride is None else stride)
        return cls(Pipeline.of(checked, backend, threads), reader, chosen, engines, out, began)

    def run(self, progress: Progress) -> Summary:
        """Run all windows and write the output folder: whole, or not at all."""
        with staged(self.out) as folder:
            return self._run(folder, progress)

    def _run(self, folder: pathlib.Path, progress: Progress) -> Summary:
        manifest = self.pipeline.manifest
        startup = time.perf_counter() - self.began
        totals = dict.fromkeys((entry.name for entry in manifest.stages), 0.0)
        done: list[WindowSummary] = []
        sheets: dict[str, Image.Image] = {}
        writing = 0.0
        result: Result | None = None
        calls = sum(entry.calls for entry in manifest.stages)
        for number, (window, inputs) in enumerate(self.reader.read(self.windows)):
            count = _Counter(progress, number * calls, len(self.windows) * calls, f"window {number + 1} of {len(self.windows)}")
            started = time.perf_counter()
            memory = None if result is None else result.memory  # a window begins where the one before it ended
            result = self.pipeline.run(inputs.images, inputs.mask_ext, inputs.keypoints, inputs.fundamental, memory, progress=count)
            for stage, seconds in self.pipeline.seconds.items():
                totals[stage] += seconds
            seconds = time.perf_counter() - started
            started = time.perf_counter()
            entry, sheet = self._write(folder, window, inputs, result, seconds, with_sheet=number < EMBEDDED_WINDOWS)
            done.append(entry)
            if sheet is not None:
                sheets[entry.name] = sheet
            writing += time.perf_counter() - started
        summary = Summary(
            page4d=__version__,
            engines=str(self.engines),
            frames=str(self.reader.folder.path),
            model=manifest.model,
            weights=manifest.weights,
            layout=manifest.layout,
            precision=manifest.precision,
            backend=f"{self.pipeline.backend}, computing in float32" if manifest.precision != "float32" else str(self.pipeline.backend),
            cameras=list(self.reader.folder.camera_names),
            windows=done,
            stage_seconds=totals,
            stage_flop={entry.name: entry.flop * entry.calls * len(done) for entry in manifest.stages},
            decode_seconds=sum(self.reader.decode_seconds),
            write_seconds=writing,
            wall_seconds=time.perf_counter() - self.began,
            startup_seconds=startup,
            buffer_bytes=self.pipeline.plan.total,
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            warnings=list(self._warnings()),
        )
        write_summary(folder / SUMMARY, summary)
        write_report(folder, summary, sheets)
        return summary

    def _write(
        self, folder: pathlib.Path, window: range, inputs: WindowInputs, result: Result, seconds: float, with_sheet: bool
    ) -> tuple[WindowSummary, Image.Image | None]:
        names = [self.reader.folder.frame_names[t] for t in window]
        cameras = list(self.reader.folder.camera_names)
        width = len(str(self.reader.folder.count - 1))
        name = f"window_{window[0]:0{width}d}-{window[-1]:0{width}d}"
        tensors: dict[str, NDArray[Any]] = {"mask": result.mask} | {f"layers.{i}": layer for i, layer in result.layers.items()}
        if result.memory is not None:
            tensors["memory"] = result.memory
        save_tensors(folder / f"{name}.safetensors", tensors)
        pictures = []
        for v, camera in enumerate(cameras):
            place = folder / "masks" / name / camera
            place.mkdir(parents=True)
            for row, frame in enumerate(names):
                path = place / f"{frame}.png"
                # a fast level: overlays are looked at once, and zlib's best takes longer than a small model
                Image.fromarray(overlay(inputs.images[row, v], result.mask[row, v])).save(path, compress_level=1)
                pictures.append(path.relative_to(folder).as_posix())
        means = {camera: mean_of(result.mask[:, v].ravel().tolist()) for v, camera in enumerate(cameras)}
        sheet = contact_sheet(inputs.images, result.mask, cameras, names) if with_sheet else None
        return WindowSummary(name, names[0], names[-1], f"{name}.safetensors", seconds, means, pictures), sheet

    def _warnings(self) -> Iterator[str]:
        folder, manifest = self.reader.folder, self.pipeline.manifest
        if folder.mask_files is None:
            yield "no external masks were given: the mask is the network's alone"
        if manifest.precision != "float32":
            yield f"this machine computes the {manifest.precision} engines in float32"


class _Counter:
    """Turns stage names into progress."""

    def __init__(self, progress: Progress, before: int, total: int, label: str) -> None:
        self.progress, self.done, self.total, self.label = progress, before, total, label

    def __call__(self, stage: str) -> None:
        self.progress(f"{self.label}: {stage}", self.done / self.total)
        self.done += 1
