"""`RunRecorder`: what a run did, summed up window by window."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field

from page4d import __version__
from page4d.system.memory import peak_memory
from page4d_engines.clip.names import readable
from page4d_engines.clip.window_reader import WindowReader
from page4d_engines.options import Backend
from page4d_engines.pipeline import Pipeline
from page4d_engines.results.made_by import MadeBy, frames_hash
from page4d_engines.results.report import Picture
from page4d_engines.results.scene.cloud_choice import CloudChoice, left_out
from page4d_engines.results.summary import Summary, WindowSummary
from page4d_engines.timing import Stopwatch, Timing


@dataclass
class RunRecorder:
    """Sums for the summary and keeps pictures for the report.

    Attributes:
        pipeline: that runs.
        reader: of the clip.
        engines: the engine folder, as it was given.
        clock: since the run began, startup included.
        choice: what point clouds are made from; None: the engines give none.
        made_by: what the results depend on.
        startup: seconds until the first window could begin.
        windows: those written so far.
        pictures: of the report, by window.
    """

    pipeline: Pipeline
    reader: WindowReader
    engines: str
    clock: Stopwatch
    choice: CloudChoice | None
    made_by: MadeBy
    startup: float = field(init=False)
    windows: list[WindowSummary] = field(default_factory=list)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    _stages: Timing = field(init=False)
    _write_seconds: float = 0.0

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.pipeline.manifest.stages]
        self._stages = Timing(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0))
        self.startup = self.clock.seconds

    def add(self, window: WindowSummary, pictures: list[Picture], timing: Timing, write_seconds: float) -> None:
        """One window that was written."""
        self.windows.append(window)
        if pictures:
            self.pictures[window.name] = pictures
        self._write_seconds += write_seconds
        for stage, seconds in timing.seconds.items():
            self._stages.seconds[stage] += seconds
            self._stages.flop[stage] += timing.flop[stage]

    def summary(self) -> Summary:
        """Of all windows so far."""
        manifest, folder = self.pipeline.manifest, self.reader.folder
        return Summary(
            page4d=__version__,
            engines=self.engines,
            frames=readable(folder.path),
            model=manifest.model,
            weights=manifest.weights,
            licence=manifest.licence,
            layout=dataclasses.asdict(manifest.layout),
            precision=manifest.precision,
            backend=self.pipeline.described,
            cameras=list(folder.camera_names),
            windows=self.windows,
            stage_seconds=self._stages.seconds,
            stage_flop=self._stages.flop,
            decode_seconds=sum(self.reader.decode_seconds),
            write_seconds=self._write_seconds,
            wall_seconds=self.clock.seconds,
            startup_seconds=self.startup,
            buffer_bytes=self.pipeline.plan.total,
            peak_rss_bytes=peak_memory(),
            windows_with_holes=sum(bool(window.absent) for window in self.windows),
            warnings=list(dict.fromkeys(self._warnings())),
            photos=self.reader.fits.sentences(folder),
            made_by=self.made_by,
            frame_files=frames_hash(folder),
        )

    def _warnings(self) -> Iterator[str]:
        folder, manifest = self.reader.folder, self.pipeline.manifest
        yield from folder.notes
        if manifest.reads("mask_ext") and folder.mask_files is None:
            yield "no external masks were given: the mask is the network's alone"
        if not manifest.reads("mask_ext") and folder.mask_files is not None:
            yield "the clip's masks were not used: these engines are of a published model, which takes none"
        if manifest.precision.has_16_bits and self.pipeline.backend is Backend.ONNXRUNTIME:
            yield f"this machine computes the {manifest.precision} engines in float32"
        if manifest.metres_by_focal_length and folder.cameras is None:
            takes = "these take the focal lengths, in cameras.json (--cameras FILE)"
            yield f"depth is in the model's own unit, not in metres: {takes}"
        yield from left_out(manifest, self.choice)
        for window in self.windows:
            if window.predictions is not None:
                yield from window.predictions.warnings
