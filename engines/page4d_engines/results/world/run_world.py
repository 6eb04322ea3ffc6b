"""`RunWorld`: the world of a run's results. Windows come into one while they run, lengths to metres at the end."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, field

import msgspec

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.system.plain_text import listed
from page4d_engines.clip.window_reader import WindowInputs, WindowReader
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.scene.window_geometry import WindowGeometry
from page4d_engines.results.summary import Summary
from page4d_engines.results.world.loop import FEWEST_WINDOWS, ClosingWindow, close_loop
from page4d_engines.results.world.metres import MetricSource
from page4d_engines.results.world.placing import placed
from page4d_engines.results.world.sampled_window import SampledWindow
from page4d_engines.results.world.scene_files import CAMERAS, SceneFiles
from page4d_engines.results.world.similarity import Similarity
from page4d_engines.results.world.window_alignment import WindowAlignment
from page4d_engines.results.world.world_summary import LoopSummary

_NAMED = 8  # images that a warning names


def aligned_stride(T: int, stride: int | None) -> int:
    """The stride of windows that are to be aligned: the one that was asked for, or one that leaves an overlap.

    Raises:
        UsageError: windows of one timestep, or a stride without overlap.
    """
    if T == 1:
        raise UsageError(
            "--align brings windows together by the frames that they share, and these engines see one at a time",
            got="T = 1",
            allowed="T = 2 or more",
            hint="page4d-export --T 8",
        )
    if stride is None:
        return T - max(1, T // 4)
    if stride >= T:
        raise UsageError(
            "--align brings windows together by the frames that they share, and these windows share none",
            got=f"--stride {stride}, T = {T}",
            allowed=f"a stride of 1 to {T - 1}",
            hint=f"--stride {aligned_stride(T, None)}, or no --stride",
        )
    return stride


def check_loop(windows: list[range], align: bool) -> None:
    """What `--close-loop` takes.

    Raises:
        UsageError: windows of their own worlds, or too few of them.
    """
    if not align:
        raise UsageError(
            "--close-loop closes the ring of aligned windows", got="no --align", hint="--align --close-loop"
        )
    if len(windows) < FEWEST_WINDOWS:
        raise UsageError(
            "the clip has too few windows for a loop",
            got=f"{len(windows)} windows",
            allowed=f"{FEWEST_WINDOWS} or more",
            hint="--align alone, or a smaller --stride",
        )


@dataclass
class RunWorld:
    """What a run's results are the world of; of the windows it holds one, and of a loop the first frames.

    Attributes:
        align: whether windows are brought into the first one's world.
        close: whether the clip's end sees its begin again.
        metric: where metres come from; None: lengths stay as they are.
    """

    align: bool = False
    close: bool = False
    metric: MetricSource | None = None
    alignment: WindowAlignment = field(default_factory=WindowAlignment)
    _closing: WindowInputs | None = None
    _loop: LoopSummary | None = None
    _closed: list[Similarity] | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is to be done: points and cameras are then written at the end, in the world they are in."""
        return self.align or self.metric is not None

    def add(self, name: str, window: range, inputs: WindowInputs, geometry: WindowGeometry) -> None:
        """The next window of the run.

        Args:
            name: of the window.
            window: its frames.
            inputs: what the engines read.
            geometry: what they gave.
        """
        if not self.align:
            return
        self.alignment.add(name, window, SampledWindow.of(geometry))
        if self.close and self._closing is None:
            layout = geometry.fits[0].layout
            self._closing = WindowInputs.allocate(layout, inputs.keypoints is not None, inputs.fundamental)
            tail = ClosingWindow.tail_of(layout.T)
            for row in range(layout.T - tail):
                self._closing.take(tail + row, inputs, row)

    def closing_inputs(self, last: WindowInputs, layout: Layout) -> WindowInputs:
        """What the engines read for the window that closes a loop: the last frames, then the first ones.

        Args:
            last: what they read for the last window.
            layout: of the engines.
        """
        assert self._closing is not None
        tail = ClosingWindow.tail_of(layout.T)
        for row in range(tail):
            self._closing.take(row, last, layout.T - tail + row)
        return self._closing

    def closing_frames(self, count: int, T: int) -> list[int]:
        """The frames of that window, of a clip of so many."""
        tail = ClosingWindow.tail_of(T)
        return [*range(count - tail, count), *range(T - tail)]

    def close_ring(self, reader: WindowReader, geometry: WindowGeometry) -> None:
        """Close the loop by what the engines gave for that window."""
        T, names = reader.layout.T, reader.folder.frame_names
        tail = ClosingWindow.tail_of(T)
        frames = [names[-tail], names[-1], names[0], names[T - tail - 1]]
        closing = ClosingWindow(tail, SampledWindow.of(geometry), frames)
        self._closed, self._loop = close_loop(self.alignment, closing)

    def finish(self, folder: pathlib.Path, summary: Summary, reader: WindowReader, with_cloud: bool = True) -> Summary:
        """Write points and cameras in the world that they are in now.

        Args:
            folder: with the run's other files.
            summary: of the run, whose windows have worlds of their own.
            reader: of the clip.
            with_cloud: whether `points.ply` is written.

        Returns:
            The summary as it is then.

        Raises:
            UsageError: where metres come from has nothing to do with the run.
        """
        if not self.changes:
            return summary
        if self.align:
            worlds = self.alignment.worlds if self._closed is None else self._closed
            windows = [placed(*both) for both in zip(summary.windows, worlds, strict=True)]
            warnings = [*summary.warnings, *self.alignment.warnings()]
            if self._loop is not None and not self._loop.closed:
                warnings.append(f"the loop was not closed: {self._loop.reason}")
            summary = msgspec.structs.replace(
                summary, windows=windows, alignment=self.alignment.summary(self._loop), warnings=warnings
            )
        run = FinishedRun.of(folder, summary, reader.folder)
        if self.metric is not None:
            summary = self.metric.summary(run)
            run = FinishedRun.of(folder, summary, reader.folder)
        return _with_scenes(run, with_cloud)


def _with_scenes(run: FinishedRun, with_cloud: bool) -> Summary:
    """Write points and cameras of a run's scenes; the summary that has these files."""
    summary, warnings = run.summary, list(run.summary.warnings)
    for scene in run.scenes():
        place = run.path / scene.name
        place.mkdir(exist_ok=True)
        files = SceneFiles.write(place, scene, with_cloud)
        summary = files.listed_in(summary, scene)
        if files.left_out:
            warnings.append(f"no pose or focal length was found for {listed(files.left_out, _NAMED)}: not in {CAMERAS}")
    return msgspec.structs.replace(summary, warnings=warnings)
