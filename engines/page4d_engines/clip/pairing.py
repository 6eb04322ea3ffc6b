"""`Pairing`: which frames of several cameras belong to one timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d.errors import UsageError
from page4d_engines.clip.bags.frame import BagFrame
from page4d_engines.clip.frame import Files
from page4d_engines.clip.gaps.absent_frame import absence_notes, filled
from page4d_engines.clip.gaps.gap_pairing import by_name, by_time, named_by_number
from page4d_engines.clip.names import composed, listed
from page4d_engines.clip.video import Video, VideoFrame

_APART = 0.5  # of a frame's duration: times that differ by less are of one frame
_UNKNOWN = 0.015  # seconds that images of a bag may be apart whose topics have one image each
_WITHOUT = "page4d-export --absent-views, for engines that go without the images of a lost camera"
_LATE = 2.0  # frames that a video may begin after another by their own clocks before a note says so


@dataclass(frozen=True)
class Pairing:
    """Frames of the same timesteps.

    Attributes:
        files: `[V][timesteps]`.
        notes: sentences about what was paired otherwise than by number and name.
    """

    files: Files
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: Sequence[str], files: Files, gaps: bool = False) -> Pairing:
        """Pair the cameras' frames.

        Videos whose frames have different times are paired by these, images that have names in common by name,
        everything else by number. Of videos, every frame of the camera with the fewest frames becomes a timestep of
        the clip if all others have a frame nearer than half of a frame's duration; no frame is used twice. Videos
        begin together, whatever their own clocks say. Images of a bag are always paired so, by their stamps, which are
        of one clock.

        Args:
            names: of the cameras.
            files: `[V][frames]`, in the order of time.
            gaps: a timestep may lack the frames of cameras, as long as one has a frame of it: an `AbsentFrame` is in
                their place. Where no more than numbers pair the frames, each camera has to have all.

        Raises:
            UsageError: unequal counts, a frame that a camera lacks, videos or topics that have no times in common.
        """
        if stamps := _stamps(files):
            return cls._by_stamps(names, files, stamps, gaps)
        videos = _videos(files)
        if videos is None:
            return cls._by_names(names, files, gaps)
        notes = tuple(_late(names, videos))
        times = [None if video.times is None else np.array(video.times) for video in videos]
        known = [stamps for stamps in times if stamps is not None]
        if len(known) < len(times) or not _differ(known):
            by_number = cls._by_names(names, files, gaps)
            if len(known) < len(times) and len(times) > 1:
                timeless = [name for name, stamps in zip(names, times, strict=True) if stamps is None]
                note = f"the videos of {listed(timeless)} have no times of their own: frames were paired by number"
                notes = (*notes, note)
            return cls(by_number.files, (*notes, *by_number.notes))
        if gaps:
            return cls._with_gaps(names, files, by_time(known, None), notes)
        chosen = _by_time(known)
        if not len(chosen):
            raise UsageError(
                "the cameras' videos have no times in common",
                got=_rates(names, known),
                allowed="videos of one event, begun together",
            )
        paired, left = _chosen(files, chosen), _left(names, files, len(chosen))
        note = f"the cameras' videos have different or variable frame rates ({_rates(names, known)})"
        note += f": {len(chosen)} times were paired by them" + (f", and no use was made of {left}" if left else "")
        return cls(paired, (*notes, note))

    @classmethod
    def _by_names(cls, names: Sequence[str], files: Files, gaps: bool) -> Pairing:
        if gaps and (paired := by_name(files)) is not None:
            return cls(paired, tuple(absence_notes(names, paired)))
        _check_times(names, files)
        return cls(files)

    @classmethod
    def _with_gaps(
        cls, names: Sequence[str], files: Files, chosen: NDArray[np.intp], notes: tuple[str, ...] = ()
    ) -> Pairing:
        """Of numbers of frames `[timesteps,V]`, -1 where a camera has none."""
        if never := [name for name, numbers in zip(names, chosen.T, strict=True) if (numbers < 0).all()]:
            raise UsageError(
                f"cameras have no times in common with the others: {listed(never)}",
                got=f"{len(chosen)} times",
                allowed="cameras of one event that see it at the same times",
            )
        columns = [
            [None if number < 0 else column[number] for number in numbers]
            for column, numbers in zip(files, chosen.T.tolist(), strict=True)
        ]
        paired = filled(columns, [named_by_number(column) for column in columns])
        return cls(paired, (*notes, *absence_notes(names, paired)))

    @classmethod
    def _by_stamps(
        cls, names: Sequence[str], files: Files, times: Sequence[NDArray[np.float64]], gaps: bool
    ) -> Pairing:
        steps = [_step(stamps) for stamps in times if len(stamps) > 1]
        apart = _APART * min(steps) if steps else _UNKNOWN
        if gaps:
            return cls._with_gaps(names, files, by_time(times, apart))
        chosen = _by_time(times, apart)
        if not len(chosen):
            raise UsageError(
                "the bag's topics have no times in common",
                got=_rates(names, times),
                allowed="images of one clock, at most half of the fastest camera's period apart",
                hint="--topics with those that go together",
            )
        left = _left(names, files, len(chosen))
        note = f"{len(chosen)} times were paired by the images' stamps, and no use was made of {left}"
        return cls(_chosen(files, chosen), (note,) if left else ())


def _chosen(files: Files, chosen: NDArray[np.intp]) -> Files:
    """The frames of some numbers `[timesteps,V]`."""
    return tuple(
        tuple(column[number] for number in numbers) for column, numbers in zip(files, chosen.T.tolist(), strict=True)
    )


def _left(names: Sequence[str], files: Files, count: int) -> str:
    """How many frames of each camera are left out; empty where none are."""
    return ", ".join(
        f"{len(column) - count} of {name}" for name, column in zip(names, files, strict=True) if len(column) > count
    )


def _stamps(files: Files) -> list[NDArray[np.float64]]:
    """Seconds since the first image of a bag; empty where the frames are of none."""
    columns = [[frame.stamp for frame in column if isinstance(frame, BagFrame)] for column in files]
    if not columns or not all(columns):
        return []
    first = min(column[0] for column in columns)
    return [np.array([stamp - first for stamp in column]) / 1e9 for column in columns]


def _videos(files: Files) -> list[Video] | None:
    """The video of each camera; None where one has images."""
    videos = [column[0].video for column in files if column and isinstance(column[0], VideoFrame)]
    return videos if len(videos) == len(files) else None


def _late(names: Sequence[str], videos: Sequence[Video]) -> list[str]:
    """A sentence if videos begin at different times by their own clocks."""
    timed = [
        (name, video) for name, video in zip(names, videos, strict=True) if video.times is not None and video.count > 1
    ]
    if not timed:
        return []
    first = min(video.start for _, video in timed)
    late = [
        f"{name} by {video.start - first:.2f} s"
        for name, video in timed
        if video.start - first > _LATE * _step(np.array(video.times))
    ]
    if not late:
        return []
    return [f"videos that begin later by their own clocks were taken to begin with the others: {', '.join(late)}"]


def _step(times: NDArray[np.float64]) -> float:
    """A frame's usual duration in seconds; 0 of a single one."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _differ(times: Sequence[NDArray[np.float64]]) -> bool:
    """Whether frames of the same number have different times, as far as all videos go."""
    shared = min(map(len, times))
    step = min(map(_step, times))
    first = times[0][:shared]
    return any(bool((np.abs(stamps[:shared] - first) > _APART * step).any()) for stamps in times[1:])


def _by_time(times: Sequence[NDArray[np.float64]], apart_by: float | None = None) -> NDArray[np.intp]:
    """Numbers of the frames that belong together, `[timesteps,V]`, rising in every column.

    Args:
        times: of each camera, in seconds.
        apart_by: seconds that they may differ; None: half of a frame's duration, the longer one's of two cameras.
    """
    end = min(stamps[-1] for stamps in times)
    leader = times[min(range(len(times)), key=lambda v: int((times[v] <= end).sum()))]
    near = np.stack([_nearest(stamps, leader) for stamps in times], axis=1)
    apart = [
        np.abs(stamps[numbers] - leader)
        > (_APART * max(_step(stamps), _step(leader)) if apart_by is None else apart_by)
        for stamps, numbers in zip(times, near.T, strict=True)
    ]
    chosen: list[NDArray[np.intp]] = []
    for numbers in near[~np.any(apart, axis=0)]:
        if not chosen or (numbers > chosen[-1]).all():
            chosen.append(numbers)
    return np.array(chosen, np.intp).reshape(-1, len(times))


def _nearest(times: NDArray[np.float64], moments: NDArray[np.float64]) -> NDArray[np.intp]:
    """The numbers of the frames nearest to some moments."""
    if len(times) == 1:
        return np.zeros(len(moments), np.intp)
    after = np.searchsorted(times, moments).clip(1, len(times) - 1)
    return np.asarray(after - (moments - times[after - 1] <= times[after] - moments), np.intp)


def _rates(names: Sequence[str], times: Sequence[NDArray[np.float64]]) -> str:
    """Frames and seconds of each camera."""
    return ", ".join(
        f"{name}: {len(stamps)} frames in {stamps[-1] + _step(stamps):.2f} s"
        for name, stamps in zip(names, times, strict=True)
    )


def _check_times(names: Sequence[str], files: Files) -> None:
    """Every camera must have the same timesteps: as many frames, and the same names if they share names at all."""
    longest = max(range(len(names)), key=lambda v: len(files[v]))
    stems = [{composed(file.stem) for file in column} for column in files]
    for v, column in enumerate(files):
        missing = None
        if stems[v] & stems[longest]:
            missing = next((file.stem for file in files[longest] if composed(file.stem) not in stems[v]), None)
        if len(column) != len(files[longest]):
            gap = f"; the first that camera {names[v]} lacks is {missing}" if missing else ""
            raise UsageError(
                "the cameras have different numbers of frames",
                got=f"camera {names[v]}: {len(column)}, camera {names[longest]}: {len(files[longest])}{gap}",
                allowed="one frame per camera and time",
                hint=_WITHOUT if missing else None,
            )
        if missing:
            raise UsageError(
                f"camera {names[v]} has no frame {missing}, which camera {names[longest]} has",
                got=f"{len(column)} frames each, of different names",
                allowed="frames of one time under one name in all cameras, or no name in common",
                hint=_WITHOUT,
            )
