"""The clip that a finished run read: where it lies, whether it is still the same, what its photos are called."""

from __future__ import annotations

import os
import pathlib

from page4d.errors import UsageError
from page4d.layout import Layout
from page4d.system.plain_text import listed
from page4d_engines.clip.bags.bag import is_bag
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.names import readable
from page4d_engines.results.batch.batch_summary import read_batch_summary
from page4d_engines.results.made_by import MadeBy, frames_hash, inputs_hash
from page4d_engines.results.summary import Summary

_MOST_NAMED = 8  # folders of a batch that an error names


def photo_path(clip: FrameFolder, t: int, v: int) -> str:
    """Path of a photo under the clip's folder, with `/`; frames of a video or a bag as if a camera had a folder."""
    frame = clip.frame_files[v][t]
    if not frame.is_whole_file:
        return f"{clip.camera_names[v]}/{frame.stem}.png"
    root = clip.places["the folder of frames"]
    return readable(frame.file.relative_to(root).as_posix())


def refuse_batch(path: pathlib.Path) -> None:
    """Check that a folder is not one of several clips' runs.

    Raises:
        UsageError: it is.
    """
    batch = read_batch_summary(path)
    if batch is not None:
        names = [folder.name for folder in batch.folders if folder.has_report]
        raise UsageError(
            "the folder holds the runs of several clips",
            got=path,
            allowed=f"one of its folders: {listed(names, _MOST_NAMED)}" if names else "the output of one run",
            hint=str(path / names[0]) if names else None,
        )


def clip_of_run(summary: Summary, made_by: MadeBy, frames: str | os.PathLike[str] | None) -> FrameFolder:
    """The clip that a run read.

    Args:
        summary: of the run.
        made_by: its own.
        frames: where the clip lies; None: where it was.

    Raises:
        UsageError: it is gone, or is another one.
    """
    place = pathlib.Path(summary.frames if frames is None else frames)
    hint = "--frames FOLDER, where the run's frames lie"
    if frames is None and not place.exists():
        raise UsageError("the run's frames are no longer where they were", got=place, hint=hint)
    try:
        topics = summary.cameras if is_bag(place) else None
        loose = UngroupedImages.of(Layout(**summary.layout))
        clip = FrameFolder.open(place, loose=loose, topics=topics, gaps=made_by.gaps)
    except UsageError as error:
        raise UsageError(f"the run's frames cannot be read: {error.what}", got=error.got, hint=hint) from None
    hashes = {frames_hash(clip), inputs_hash(clip)}
    if not hashes & {summary.frame_files, made_by.inputs}:
        raise UsageError(
            "the frames are not those that the run read: files are gone, new or changed",
            got=place,
            allowed=f"the frames of {summary.frames}, as they were",
            hint=f"{hint}, or page4d-run again",
        )
    return clip
