"""`Batch`: many folders of frames through engines that are loaded once; each folder's results as a run writes them."""

from __future__ import annotations

import dataclasses
import errno
import logging
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from safetensors import SafetensorError

from page4d import __version__
from page4d.errors import Page4DError, UsageError
from page4d.files import refuse_foreign
from page4d.system.interrupts import raised_interrupts
from page4d.system.plain_text import counted
from page4d.system.progress import Progress
from page4d_engines.clip import video
from page4d_engines.clip.bags.bag import is_bag
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.names import readable
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.pipeline import Pipeline
from page4d_engines.results.batch.batch_summary import (
    BatchSummary,
    FolderResult,
    FolderState,
    earlier_results,
    refuse_foreign_batch,
    write_batch_summary,
)
from page4d_engines.results.batch.names import result_names
from page4d_engines.results.batch.overview import write_overview
from page4d_engines.results.clip_run import ClipPlan, ClipRun, RunOptions
from page4d_engines.results.summary import RUN_OUTPUT, Summary, finished
from page4d_engines.timing import Stopwatch

_LOG = logging.getLogger("page4d.batch")


@dataclass
class Batch:
    """A checked batch, ready to start.

    Attributes:
        engines: the engine folder.
        out: folder to write.
        options: how to run every folder; their clock is the batch's.
        folders: the clips that are to be run, by the names of their results.
        results: of every folder, in the order in which they were given; after them those of earlier batches.
        names: of the results of the folders of this batch.
        sliding: whether windows of a clip overlap.
        left_out: files that are no videos, of which nothing can be run: a shell's `*` finds them, too.
    """

    engines: EngineFolder
    out: pathlib.Path
    options: RunOptions
    folders: dict[str, FrameFolder]
    results: dict[str, FolderResult]
    names: list[str]
    sliding: bool
    left_out: list[pathlib.Path]
    load_seconds: float = field(default=0.0, init=False)

    @classmethod
    def prepare(
        cls,
        engines: EngineFolder,
        paths: list[pathlib.Path],
        out: pathlib.Path,
        options: RunOptions,
        cameras: pathlib.Path | None = None,
        resume: bool = False,
        topics: list[str] | None = None,
    ) -> Batch:
        """Look at every folder; those that cannot be run are known then.

        Args:
            engines: the engine folder.
            paths: folders of frames, videos, or bags.
            out: folder to write.
            options: how to run every folder.
            cameras: a `cameras.json` for all of them; None takes the one beside each folder's frames.
            resume: keep results that are whole and of the same engines, options and photos.
            topics: of all bags, the cameras in the order of the views; None takes all topics of images.

        Raises:
            UsageError: names that go together in no folder, `out` holds something else, or none of the folders can be
                run.
        """
        files = [path for path in paths if path.is_file() and not is_bag(path)]
        left_out = [path for path in files if path.suffix.lower() not in video.SUFFIXES]
        paths = [path for path in paths if path not in left_out] or paths
        names = result_names(paths)
        inputs = {f"the folder {readable(path)}": path for path in paths}
        refuse_foreign_batch(out, {"the engine folder": engines.path, **inputs})
        batch = cls(
            engines=engines,
            out=out,
            options=options,
            folders={},
            results={},
            names=names,
            sliding=False,
            left_out=left_out,
        )
        if out.is_dir():
            for name, path in zip(names, paths, strict=True):
                places = {"the engine folder": engines.path, f"the folder {readable(path)}": path}
                refuse_foreign(out / name, RUN_OUTPUT, places)
        errors = [batch._look(name, path, cameras, resume, topics) for name, path in zip(names, paths, strict=True)]
        _refuse_all([error for error in errors if error is not None], list(batch.results.values()))
        batch.results |= {result.name: result for result in earlier_results(out, names)}
        return batch

    def _look(
        self, name: str, path: pathlib.Path, cameras: pathlib.Path | None, resume: bool, topics: list[str] | None
    ) -> Exception | None:
        """Open a folder and check it, or find its result; the error, if it cannot be run."""
        result = FolderResult(name=name, frames=readable(path), state=FolderState.OPEN)
        try:
            loose = UngroupedImages.of(self.engines.manifest.layout)
            gaps = self.engines.manifest.takes_present
            folder = FrameFolder.open(path, cameras=cameras, loose=loose, topics=topics, gaps=gaps)
            result = msgspec.structs.replace(result, images=folder.count * len(folder.camera_names))
            plan = ClipPlan.of(self.engines, folder, self.options)
            earlier = finished(self.out / name, plan.made_by) if resume else None
        except Exception as error:
            self.results[name] = _failed(result, error)
            return error
        if earlier is None:
            self.results[name], self.folders[name] = result, folder
            self.sliding = self.sliding or plan.sliding
        else:
            self.results[name] = _with_figures(result, FolderState.KEPT, earlier)
        return None

    def run(self, progress: Progress, tell: Callable[[FolderResult], None] = lambda result: None) -> BatchSummary:
        """Run the folders, one after the other; a folder that fails leaves the others alone.

        Args:
            progress: of the whole batch.
            tell: called with each folder's result as soon as it is known.

        Raises:
            EngineError, MissingBackendError, OutOfMemoryError: from loading the engines; nothing is written then.
            OSError: the disk is full. The results so far stay.
        """
        clock = Stopwatch()
        pipeline: Pipeline | None = None
        if self.folders:
            pipeline = Pipeline.of(self.engines, self.options.backend, self.options.pool, sliding=self.sliding)
            self.load_seconds = clock.seconds
        self.out.mkdir(exist_ok=True)
        for result in self.results.values():
            if result.state is not FolderState.OPEN:
                tell(result)
        summary = self._write()
        count = len(self.folders)
        for number, (name, folder) in enumerate(self.folders.items()):
            part = progress.part(number / count, (number + 1) / count, label=f"{name} ({number + 1} of {count}), ")
            self.results[name] = self._run(self.results[name], folder, pipeline, part)
            summary = self._write()
            tell(self.results[name])
        return summary

    def _run(
        self, result: FolderResult, folder: FrameFolder, pipeline: Pipeline | None, progress: Progress
    ) -> FolderResult:
        options = dataclasses.replace(self.options, clock=Stopwatch())
        with raised_interrupts() as raised:
            try:
                job = ClipRun.prepare(self.engines, folder, self.out / result.name, options, pipeline)
                return _with_figures(result, FolderState.DONE, job.run(progress))
            except Exception as error:
                if raised:  # Ctrl-C, which a library made another error of
                    raise raised[0] from None
                if _ends_all(error):
                    raise
                return _failed(result, error)

    def _write(self) -> BatchSummary:
        """Write what is known of all folders."""
        summary = BatchSummary(
            page4d=__version__,
            engines=readable(self.engines.path),
            folders=list(self.results.values()),
            load_seconds=self.load_seconds,
            wall_seconds=self.options.clock.seconds,
        )
        write_batch_summary(self.out, summary)
        write_overview(self.out, summary)
        return summary


def _with_figures(result: FolderResult, state: FolderState, summary: Summary) -> FolderResult:
    return msgspec.structs.replace(result, state=state, points=summary.points, seconds=summary.wall_seconds)


def _failed(result: FolderResult, error: Exception) -> FolderResult:
    """With the error in words; one that is no user's is a fault, which must not end a long batch."""
    if isinstance(error, Page4DError):
        text = str(error)
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    else:
        _LOG.debug("%s", result.name, exc_info=error)
        text = f"this is a fault in page4d: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        text += "\n  try:     this folder alone with -v, and report what it prints"
    return msgspec.structs.replace(result, state=FolderState.FAILED, error=text)


def _ends_all(error: Exception) -> bool:
    """Whether the folders after this one would fail as well: no space is left, or no memory."""
    if isinstance(error, SafetensorError):  # has no errno
        return "No space left" in str(error)
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, MemoryError) and not isinstance(error, Page4DError)


def _refuse_all(errors: list[Exception], results: list[FolderResult]) -> None:
    """Raise where every folder has an error: before anything is written or loaded."""
    if len(errors) < len(results):
        return
    if len({str(error) for error in errors}) == 1:  # of the options, not of a folder
        raise errors[0]
    raise UsageError("\n".join(["none of the folders can be run", *map(in_words, results)]))


def in_words(result: FolderResult) -> str:
    """A line on a folder; of a failed one the whole error."""
    if result.state is FolderState.FAILED:
        return f"{result.name}: {result.error}"
    points = "" if result.points is None else f", {result.points:,} points"
    seconds = "" if result.seconds is None else f" in {result.seconds:.1f} s"
    kept = " (kept)" if result.state is FolderState.KEPT else ""
    return f"{result.name}: {counted(result.images or 0, 'image')}{seconds}{points}{kept}"
