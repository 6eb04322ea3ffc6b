"""Timesteps that cameras lack: which frames belong together where not every camera has one."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from page4d_engines.clip.frame import Files, Frame
from page4d_engines.clip.gaps.absent_frame import filled
from page4d_engines.clip.names import composed, natural

_APART, _NEXT = 0.5, 0.75
"""Of the slowest camera's period: frames that are nearer than the first belong together, and two timesteps lie further
apart than the second."""


def by_name(files: Files) -> Files | None:
    """Frames of one name belong together; every name is a timestep.

    Args:
        files: `[V][frames]`.

    Returns:
        `[V][timesteps]`, with an `AbsentFrame` where a camera lacks a name; None where the names do not tell: all
        cameras have the same, or one has none in common with the camera of the most frames.
    """
    stems: list[dict[str, Frame]] = [{composed(frame.stem): frame for frame in column} for column in files]
    most = max(stems, key=len)
    if all(column.keys() == most.keys() for column in stems) or not all(
        column.keys() & most.keys() for column in stems
    ):
        return None
    times = sorted({stem for column in stems for stem in column}, key=natural)
    return filled([[column.get(time) for time in times] for column in stems], [times] * len(stems))


def by_time(times: Sequence[NDArray[np.float64]], apart: float | None) -> NDArray[np.intp]:
    """Numbers of the frames that belong together, `[timesteps,V]`, rising in every column; -1 where a camera has none.

    Every frame of the slowest camera is a timestep, and where it has gaps, frames of the others are. A timestep has of
    every camera the frame that is nearest to it. Frames between two timesteps, of faster cameras, are left out.

    Args:
        times: of each camera, in seconds, ascending.
        apart: seconds that a frame may be from its timestep; None: half of the slowest camera's usual period.
    """
    periods = [float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0 for stamps in times]
    step = max(periods)
    reach = _APART * step if apart is None else apart
    moments: list[float] = []
    for v in sorted(range(len(times)), key=lambda v: (-periods[v], -len(times[v]), v)):
        for stamp in times[v].tolist():
            place = bisect.bisect(moments, stamp)
            near = moments[max(place - 1, 0) : place + 1]
            if all(abs(stamp - moment) > max(reach, _NEXT * step) for moment in near):
                moments.insert(place, stamp)
    return np.stack([_nearest(stamps, np.array(moments), reach) for stamps in times], axis=1)


def _nearest(times: NDArray[np.float64], moments: NDArray[np.float64], reach: float) -> NDArray[np.intp]:
    """The number of the frame that is nearest to each moment, -1 where none is near; each frame once."""
    distances = np.abs(times[None] - moments[:, None])
    rows = np.arange(len(moments))
    numbers = distances.argmin(1).astype(np.intp)
    numbers[distances[rows, numbers] > reach] = -1
    for number in range(len(times)):
        claims = np.flatnonzero(numbers == number)
        if len(claims) > 1:
            best = claims[distances[claims, number].argmin()]
            numbers[claims[claims != best]] = -1
    return numbers


def named_by_number(column: Sequence[Frame | None]) -> list[str]:
    """Names of a recording's timesteps: the frames' own, and `000012+1` one after frame 000012 that has none."""
    names: list[str] = []
    last, since = "start", 0
    for frame in column:
        last, since = (last, since + 1) if frame is None else (frame.stem, 0)
        names.append(f"{last}+{since}" if since else last)
    return names
