"""`WindowAlignment`: one window after the other comes into the world of the first, through the frames they share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from page4d.errors import UsageError
from page4d_engines.results.world.camera_similarity import fit_cameras
from page4d_engines.results.world.sampled_window import SampledWindow
from page4d_engines.results.world.similarity import Floats, RobustFit, Similarity, robust_fit
from page4d_engines.results.world.world_summary import AlignmentSummary, LoopSummary, PairSummary

_FEWEST = 16  # points; of fewer, chance makes an agreement


@dataclass(frozen=True)
class Pair:
    """A window and the one before it.

    Attributes:
        similarity: from the window's world to that of the one before.
        summary: how well it fits.
    """

    similarity: Similarity
    summary: PairSummary


@dataclass
class WindowAlignment:
    """Worlds of a clip's windows. Of the windows only the last one is kept, and what a loop needs of the first.

    Attributes:
        windows: frames of each window so far.
        pairs: of each but the first.
        worlds: from each window's own world to the first one's.
        first: the first window.
        last: the last one.
        depths, middles: of each window, its median depth and the middle of its cameras, in its own world.
    """

    windows: list[range] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    worlds: list[Similarity] = field(default_factory=list)
    first: SampledWindow | None = None
    last: SampledWindow | None = None
    depths: list[float] = field(default_factory=list)
    middles: list[Floats] = field(default_factory=list)

    def add(self, name: str, window: range, sampled: SampledWindow) -> Similarity:
        """Align the next window; returns its world: from its own to the first one's.

        Args:
            name: of the window.
            window: its frames, the first of which are the last of the window before.
            sampled: what it shows.
        """
        if self.last is None:
            self.worlds.append(Similarity.identity())
            self.first = sampled
        else:
            shared = len(shared_frames(self.windows[-1], window))
            T = len(window)
            before = self.last.frames(range(T - shared, T))
            pair = align(name, before, sampled.frames(range(shared)))
            self.pairs.append(pair)
            self.worlds.append(self.worlds[-1].after(pair.similarity))
        self.windows.append(window)
        self.depths.append(sampled.typical_depth)
        self.middles.append(sampled.middle)
        self.last = sampled
        return self.worlds[-1]

    def summary(self, loop: LoopSummary | None = None) -> AlignmentSummary:
        """Of all windows so far."""
        pairs = [pair.summary for pair in self.pairs]
        overlaps = [len(shared_frames(*both)) for both in zip(self.windows, self.windows[1:], strict=False)]
        return AlignmentSummary(
            overlap=min(overlaps, default=0),
            pairs=pairs,
            drift_degrees=_grown([pair.degrees for pair in pairs]),
            drift_shift=_grown([pair.shift for pair in pairs]),
            loop=loop,
        )

    def warnings(self) -> list[str]:
        """Sentences on windows that could not be aligned as they should."""
        by_cameras = [pair.summary.window for pair in self.pairs if pair.summary.fitted_to == "cameras"]
        lost = [pair.summary.window for pair in self.pairs if pair.summary.fitted_to == "nothing"]
        sentences = []
        if by_cameras:
            sentences.append(f"aligned by the cameras alone, without usable points: {', '.join(by_cameras)}")
        if lost:
            sentences.append(
                f"no points or cameras that are shared with the window before: {', '.join(lost)};"
                " what follows is not in the world of what is before"
            )
        return sentences


def shared_frames(before: range, window: range) -> range:
    """Frames that a window shares with the one before it."""
    return range(max(before.start, window.start), min(before.stop, window.stop))


def align(name: str, before: SampledWindow, after: SampledWindow) -> Pair:
    """Bring a window into the world of another, through the frames that both have.

    Each pixel's points in both are the same point of the scene, also where it moves. Its weight is the product of its
    confidences' roots, over its depths: what a depth is off grows with it.

    Args:
        name: of the window.
        before, after: the shared frames in the other's world, and in the window's.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        depths = before.depth.astype(np.float64) * after.depth
        weights = np.sqrt(before.confidence.astype(np.float64) * after.confidence) / depths
    source, target = (part.points.reshape(-1, 3).astype(np.float64) for part in (after, before))
    fit: RobustFit | None = None
    try:
        fit = robust_fit(source, target, weights.ravel())
        fit = fit if fit.used >= _FEWEST else None
    except UsageError:
        fit = None
    if fit is not None:
        similarity, how = fit.similarity, "points"
    else:
        similarity, how = _by_cameras(before, after)
    degrees, shift = _disagreement(similarity, before, after)
    error = None
    if fit is not None:
        with np.errstate(invalid="ignore"):
            off = np.linalg.norm(similarity.of_points(source) - target, axis=1) / before.depth.ravel()
        # the median of those that agree, which are the nearest ones
        error = float(np.nanquantile(np.where(weights.ravel() > 0, off, np.nan), fit.share / 2))
    summary = PairSummary(
        window=name,
        frames=len(before.points),
        points=0 if fit is None else fit.used,
        fitted_to=how,
        scale=similarity.scale,
        error=error,
        agreeing=None if fit is None else fit.share,
        degrees=degrees,
        shift=shift,
    )
    return Pair(similarity, summary)


def _by_cameras(before: SampledWindow, after: SampledWindow) -> tuple[Similarity, str]:
    """From the poses of the shared cameras; a single one says nothing of the scale, which is then taken as the same."""
    if before.cameras is None or after.cameras is None:
        return Similarity.identity(), "nothing"
    poses = after.cameras.reshape(-1, 4, 4), before.cameras.reshape(-1, 4, 4)
    try:
        return fit_cameras(*poses, scale=1.0).similarity, "cameras"
    except UsageError:
        return Similarity.identity(), "nothing"


def _disagreement(
    similarity: Similarity, before: SampledWindow, after: SampledWindow
) -> tuple[float | None, float | None]:
    """Median angle in degrees, and distance as a share of the depth, between shared cameras that are in one world."""
    if before.cameras is None or after.cameras is None:
        return None, None
    moved, poses = similarity.of_pose(after.cameras.reshape(-1, 4, 4)), before.cameras.reshape(-1, 4, 4)
    known = np.isfinite(moved).all((1, 2)) & np.isfinite(poses).all((1, 2))
    if not known.any():
        return None, None
    turns = np.swapaxes(poses[known, :3, :3], 1, 2) @ moved[known, :3, :3]
    angles = [Similarity(1.0, turn, np.zeros(3)).degrees for turn in turns]
    distances = np.linalg.norm(moved[known, :3, 3] - poses[known, :3, 3], axis=1)
    return float(np.median(angles)), float(np.median(distances)) / before.typical_depth


def _grown(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return float(np.sqrt(np.square(known).sum())) if known else None
