"""`AlignmentSummary` and `MetricSummary`: how windows came into one world, and how it came to metres."""

from __future__ import annotations

import msgspec

from page4d.system.plain_text import counted


class PairSummary(msgspec.Struct, frozen=True):
    """How a window was brought into the world of the one before it."""

    window: str
    frames: int
    """Timesteps that both have."""
    points: int
    """Of both windows, that were compared."""
    fitted_to: str
    """`points`, `cameras` (no points determine a map), or `nothing`: from this window on the world is another."""
    scale: float
    """Units of the window before per unit of this one."""
    error: float | None
    """Median distance between the points of both windows that agree, as a share of their depth; None without points."""
    agreeing: float | None
    """Share of the points' weight whose points agree on the map."""
    degrees: float | None
    """Median angle between the rotations that both windows give the shared cameras, once in one world."""
    shift: float | None
    """Median distance between the positions that both windows give these, as a share of the depth."""


class LoopGap(msgspec.Struct, frozen=True):
    """How far the ring of windows is from closing, seen from the first window."""

    scale: float
    """Factor; 1 is closed."""
    degrees: float
    distance: float
    """Share of the first window's depth."""


class LoopSummary(msgspec.Struct, frozen=True):
    """What became of a loop: a further window over the last and the first frames."""

    closed: bool
    reason: str
    """Why it was not closed; empty where it was."""
    frames: list[str]
    """First and last timestep of the clip's end in the closing window, then of its begin."""
    error: float | None
    """Of the worse one of its two ends, as `PairSummary.error`."""
    seen_again: float | None
    """Share of the first frames' points that lie on surfaces of the last frames, in the closing window."""
    before: LoopGap | None = None
    after: LoopGap | None = None


class AlignmentSummary(msgspec.Struct, frozen=True):
    """How the windows of a clip came into the first one's world. Lengths are shares of the depth there."""

    overlap: int = 0
    """Timesteps that a window shares with the one before; the last one may share more."""
    pairs: list[PairSummary] = []
    """For each window but the first."""
    drift_degrees: float | None = None
    """Root of the sum of squares over the pairs: what their disagreements add up to if they are independent."""
    drift_shift: float | None = None
    loop: LoopSummary | None = None

    @property
    def error(self) -> float | None:
        """The largest of the pairs."""
        return max((pair.error for pair in self.pairs if pair.error is not None), default=None)

    @property
    def in_words(self) -> str:
        """A line for the terminal and the report."""
        if not self.pairs:
            return "a single window"
        line = f"{len(self.pairs) + 1} windows in one world, overlap {counted(self.overlap, 'timestep')}"
        if self.error is not None:
            line += f"; points of two windows differ by up to {self.error:.2%} of their depth"
        if self.drift_degrees is not None and self.drift_shift is not None:
            line += f"; expected drift at the end {self.drift_degrees:.2f} degrees, {self.drift_shift:.2%} of the depth"
        return line

    @property
    def loop_in_words(self) -> str | None:
        """A line on the loop; None where none was asked for."""
        loop = self.loop
        if loop is None:
            return None
        if not loop.closed or loop.before is None or loop.after is None:
            return f"not closed: {loop.reason}"
        return f"closed: the ends were apart by {_gap(loop.before)}, and are by {_gap(loop.after)}"


class MetricScale(msgspec.Struct, frozen=True):
    """Of one world."""

    scale: float
    """Metres per unit that the engines gave."""
    residual: float | None
    """What is left: metres between cameras, median; of depth, the median deviation of the ratio, as a share of it; None
    of a single distance, which fits."""
    measured: int
    """Cameras, or pixels, or distances."""


class MetricSummary(msgspec.Struct, frozen=True):
    """Where metres come from."""

    source: str
    """`cameras`, `depth` or `distance`."""
    reference: str
    """What lengths were compared with, as on the command line: a path, or names and a distance."""
    worlds: dict[str, MetricScale]
    """By window; a single one, named "", where the windows share a world."""

    @property
    def in_words(self) -> str:
        """A line for the terminal and the report."""
        scales = [world.scale for world in self.worlds.values()]
        low, high = min(scales), max(scales)
        span = f"{low:.4g}" if len(scales) == 1 else f"{low:.4g} to {high:.4g}"
        line = f"from {self.reference} ({self.source}), scale {span}"
        residuals = [world.residual for world in self.worlds.values() if world.residual is not None]
        if not residuals:
            return line
        worst = max(residuals)
        return f"{line}, residual {f'{worst:.1%}' if self.source == 'depth' else f'{worst:.3g} m'}"


def _gap(gap: LoopGap) -> str:
    return f"a factor {gap.scale:.4f}, {gap.degrees:.2f} degrees, {gap.distance:.2%} of the depth"
