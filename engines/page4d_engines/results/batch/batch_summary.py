"""`BatchSummary`: what became of each folder of a batch, as `summary.json` has it and `report.html` shows it."""

from __future__ import annotations

import enum
import pathlib

import msgspec

from page4d.files import OutputKind, refuse_foreign, write_atomically
from page4d.system.plain_text import json_document
from page4d_engines.clip.names import readable
from page4d_engines.results.summary import SUMMARY


class FolderState(str, enum.Enum):
    """What became of a folder of frames."""

    DONE = "done"
    """It was run."""
    KEPT = "kept"
    """The result of an earlier command is whole, and of the same engines, options and photos."""
    FAILED = "failed"
    OPEN = "not run"
    """The batch has not come to it, or was stopped before."""

    def __str__(self) -> str:
        return self.value


class FolderResult(msgspec.Struct, frozen=True):
    """One folder of frames."""

    name: str
    """Of the folder in the output folder that holds the results."""
    frames: str
    """The folder of frames or the video, as it was given."""
    state: FolderState
    images: int | None = None
    points: int | None = None
    """Of all point clouds; None without one."""
    seconds: float | None = None
    """That the run took; without loading the engines."""
    error: str = ""
    """Why it failed, in words."""

    @property
    def has_report(self) -> bool:
        """Whether its results are there."""
        return self.state in (FolderState.DONE, FolderState.KEPT)


class BatchSummary(msgspec.Struct, frozen=True):
    """One batch. Seconds are seconds on the clock."""

    page4d: str
    """Version of the runtime."""
    engines: str
    """The engine folder, as it was given."""
    folders: list[FolderResult]
    """In the order in which they were given; then those of earlier batches with the same output folder."""
    load_seconds: float
    """Loading the engines, once; 0 where nothing had to be run."""
    wall_seconds: float
    """The whole batch so far, startup included."""

    def of_state(self, state: FolderState) -> list[FolderResult]:
        """The folders of a state."""
        return [folder for folder in self.folders if folder.state is state]


def write_batch_summary(folder: pathlib.Path, summary: BatchSummary) -> None:
    """Write `summary.json`, whole or not at all; undecodable bytes of file names are escaped."""
    write_atomically(folder / SUMMARY, json_document(summary))


def read_batch_summary(folder: pathlib.Path) -> BatchSummary | None:
    """What `write_batch_summary` wrote; None where a folder holds no batch."""
    try:
        return msgspec.json.decode((folder / SUMMARY).read_bytes(), type=BatchSummary)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def refuse_foreign_batch(out: pathlib.Path, inputs: dict[str, pathlib.Path]) -> None:
    """Raise unless `-o` may hold a batch: it does not exist, is empty, or holds one already.

    A batch is never replaced as a whole: its folders are, each by itself. So what else lies in it may stay.

    Raises:
        UsageError: it holds something else, is no folder, cannot be written, or lies in an input or around an input.
    """
    if read_batch_summary(out) is None:
        refuse_foreign(out, OutputKind("the output of a batch", SUMMARY, lambda folder: None), inputs)


def earlier_results(out: pathlib.Path, names: list[str]) -> list[FolderResult]:
    """Of folders that earlier batches wrote, whose results are there still; without those of `names`."""
    earlier = read_batch_summary(out)
    if earlier is None:
        return []
    known = {readable(name) for name in names}
    return [
        folder
        for folder in earlier.folders
        if folder.name not in known and folder.has_report and (out / folder.name / SUMMARY).is_file()
    ]
