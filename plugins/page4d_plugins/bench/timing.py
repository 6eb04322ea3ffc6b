"""Sides of a comparison, run in turn: what all benchmarks share."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from page4d.system.progress import SILENT, Progress

Key = TypeVar("Key")
Sample = Mapping[str, float]
"""The times of one run by part; `WHOLE` is all of it."""
WHOLE = "whole"


@dataclass(frozen=True)
class Timings(Generic[Key]):
    """Times of every side, round by round, in the unit that the sides measure in."""

    samples: dict[Key, list[Sample]]

    def times(self, side: Key, part: str = WHOLE) -> list[float]:
        """Times of a part of one side, one for each round."""
        return [sample[part] for sample in self.samples[side]]

    def median(self, side: Key, part: str = WHOLE) -> float:
        """Median time of a part of one side, over the rounds."""
        return statistics.median(self.times(side, part))

    def ratios(self, side: Key, other: Key, part: str = WHOLE) -> list[float]:
        """A side's time over the other's, a value a round."""
        pairs = zip(self.times(side, part), self.times(other, part), strict=True)
        return [time / other_time for time, other_time in pairs]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest."""
    return min(values), max(values)


def interleave(
    sides: Mapping[Key, Callable[[], Sample]],
    rounds: int,
    *,
    warm_up: bool = True,
    failed: Callable[[Key, Exception], None] | None = None,
    progress: Progress = SILENT,
) -> Timings[Key]:
    """Run every side once a round, in turn, so that a machine that changes its speed does so for all of them.

    Args:
        sides: each runs once and gives the times that it took.
        rounds: that are counted.
        warm_up: whether there is a round before, which is not counted.
        failed: told of a side that raised, which is left out from then on; None: the error is the caller's.
        progress: told of each run.
    """
    running = dict(sides)
    samples: dict[Key, list[Sample]] = {side: [] for side in sides}
    first = 0 if warm_up else 1
    count = rounds + 1 - first
    for number in range(first, rounds + 1):
        for place, (side, run) in enumerate(list(running.items())):
            progress.note(f"round {number} of {rounds}: {side}", (number - first + place / len(running)) / count)
            try:
                sample = run()
            except Exception as error:  # whatever foreign kernels, compilers and runtimes raise
                if failed is None:
                    raise
                failed(side, error)
                del running[side], samples[side]
                continue
            if number:
                samples[side].append(sample)
    return Timings(samples)
