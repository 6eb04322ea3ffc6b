"""A loop: the clip's end sees its begin again. A further window over both says where, and the ring closes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from page4d_engines.results.world.ring import close_ring
from page4d_engines.results.world.sampled_window import SampledWindow
from page4d_engines.results.world.similarity import Similarity
from page4d_engines.results.world.window_alignment import Pair, WindowAlignment, align
from page4d_engines.results.world.world_summary import LoopGap, LoopSummary

FEWEST_WINDOWS = 3
"""Of a loop: two share frames anyway."""

_WORST, _AGREEING = 0.1, 0.5  # error and agreement of an end of the closing window that is believed
_CELL = 0.05  # side of a cell, as a share of the depth
_SEEN = 0.3  # share of the first frames' points that lie in cells of the last ones, in a loop
_LEFT = 1e-3  # of a closed ring: of the scale, in degrees, and as a share of the depth
_VARIANCE = {"points": 1.0, "cameras": 10.0, "nothing": 1e4}
"""Of a link, by what it was fitted to. How well points fit does not count: of a single shared frame they fit perfectly,
whatever its depths are off by together."""


@dataclass(frozen=True)
class ClosingWindow:
    """A window over the clip's last frames, then its first ones.

    Attributes:
        tail: how many of its timesteps are the clip's last ones; the others are the first ones.
        sampled: what it shows.
        frames: names of the first and last timestep of either part.
    """

    tail: int
    sampled: SampledWindow
    frames: list[str]

    @classmethod
    def tail_of(cls, T: int) -> int:
        """Of T timesteps."""
        return T - T // 2


def close_loop(alignment: WindowAlignment, closing: ClosingWindow) -> tuple[list[Similarity], LoopSummary]:
    """Spread what the ring of windows is open by over all of them.

    Args:
        alignment: of all windows.
        closing: the further window.

    Returns:
        Each window's world, and what was done. The worlds stay as they are where the closing window does not fit,
        or the ring is too far open.
    """
    assert alignment.first is not None and alignment.last is not None
    T, tail = len(closing.sampled.points), closing.tail
    to_last = align("", alignment.last.frames(range(T - tail, T)), closing.sampled.frames(range(tail)))
    to_first = align("", alignment.first.frames(range(T - tail)), closing.sampled.frames(range(tail, T)))
    errors = [pair.summary.error for pair in (to_last, to_first)]
    error = max((value for value in errors if value is not None), default=None)
    seen_again = _seen_again(closing)
    reason = _misfit(to_last, to_first, seen_again)
    back = to_last.similarity.after(to_first.similarity.inverse())  # from the first window to the last
    before, after = _gap(alignment, alignment.worlds, back), None
    worlds = list(alignment.worlds)
    if not reason:
        closed_worlds = _closed(alignment, back)
        if closed_worlds is None:
            reason = "the windows are too far from a ring: no small changes of them close it"
        else:
            worlds, after = closed_worlds, _gap(alignment, closed_worlds, back)
    summary = LoopSummary(
        closed=not reason,
        reason=reason,
        frames=closing.frames,
        error=error,
        seen_again=seen_again,
        before=before,
        after=after,
    )
    return worlds, summary


def _closed(alignment: WindowAlignment, back: Similarity) -> list[Similarity] | None:
    """The windows' worlds once the ring is closed; None where the changes do not come to an end."""
    # in frames about the cameras and with the depth as unit, a change of a link says the same in every window
    frames = [
        Similarity(depth, np.eye(3), middle) for depth, middle in zip(alignment.depths, alignment.middles, strict=True)
    ]
    measured = [*(pair.similarity for pair in alignment.pairs), back]
    following = [*frames[1:], frames[0]]
    links = [
        frame.inverse().after(link).after(after) for frame, link, after in zip(frames, measured, following, strict=True)
    ]
    variances = np.array([_VARIANCE[pair.summary.fitted_to] for pair in alignment.pairs] + [_VARIANCE["points"]])
    worlds = [Similarity.identity()]
    closed, whole = close_ring(links, variances), Similarity.identity()
    for link in closed:
        whole = whole.after(link)
    if not (abs(whole.scale - 1) < _LEFT and whole.degrees < _LEFT and np.linalg.norm(whole.translation) < _LEFT):
        return None  # also of NaN
    for frame, link, after in zip(frames, closed[:-1], following, strict=False):
        worlds.append(worlds[-1].after(frame.after(link).after(after.inverse())))
    return worlds


def _gap(alignment: WindowAlignment, worlds: list[Similarity], back: Similarity) -> LoopGap:
    """Where the ring leads the first window: its cameras' move and turn, and the scale."""
    ring = worlds[-1].after(back)
    middle = alignment.middles[0]
    moved = float(np.linalg.norm(ring.of_points(middle) - middle))
    return LoopGap(scale=ring.scale, degrees=ring.degrees, distance=moved / alignment.depths[0])


def _misfit(to_last: Pair, to_first: Pair, seen_again: float | None) -> str:
    """Why the closing window is not believed; empty where it is."""
    for pair, part in ((to_last, "last"), (to_first, "first")):
        summary = pair.summary
        if summary.fitted_to != "points" or summary.error is None or summary.agreeing is None:
            return f"no points of the {part} frames determine where the closing window is"
        if summary.error > _WORST or summary.agreeing < _AGREEING:
            return (
                f"the closing window shows the {part} frames otherwise than their own window: points differ by"
                f" {summary.error:.1%} of their depth, {summary.agreeing:.0%} agree"
                f" (allowed: {_WORST:.0%}, and {_AGREEING:.0%} or more)"
            )
    if seen_again is None or seen_again < _SEEN:
        return (
            f"the last frames do not see what the first ones do: {seen_again or 0.0:.0%} of the first ones' points lie"
            f" on surfaces of the last ones ({_SEEN:.0%} or more in a loop)"
        )
    return ""


def _seen_again(closing: ClosingWindow) -> float | None:
    """Share of the cells of the first frames' points that have a point of the last frames in them, or in one beside."""
    sampled, tail = closing.sampled, closing.tail
    sure = np.isfinite(sampled.points).all(-1) & (sampled.confidence > 0)
    if not sure.any():
        return None
    side = _CELL * sampled.typical_depth
    last, first = sampled.points[:tail][sure[:tail]], sampled.points[tail:][sure[tail:]]
    if not len(last) or not len(first):
        return None
    cells = _cells(last, side)
    around = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    near_last = {tuple(cell) for cell in np.unique((cells[:, None] + around).reshape(-1, 3), axis=0).tolist()}
    first_cells = _cells(first, side).tolist()
    return sum(tuple(cell) in near_last for cell in first_cells) / len(first_cells)


def _cells(points: NDArray[np.floating], side: float) -> NDArray[np.int64]:
    """The cells `[m,3]` of so long a side that points `[n,3]` lie in."""
    with np.errstate(invalid="ignore", over="ignore"):
        cells = np.floor(np.clip(points.astype(np.float64) / side, -1e9, 1e9)).astype(np.int64)
    return np.unique(cells, axis=0)
