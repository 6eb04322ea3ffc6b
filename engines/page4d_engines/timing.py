"""Time: a stopwatch, and where a run's time went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


class Stopwatch:
    """Seconds on the clock since it was made, or since a time that `time.perf_counter` gave."""

    def __init__(self, started: float | None = None) -> None:
        self._started = self._lap = time.perf_counter() if started is None else started

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._started

    def lap(self) -> float:
        """Seconds since the last lap began; the next one begins."""
        begun, self._lap = self._lap, time.perf_counter()
        return self._lap - begun


@dataclass(frozen=True)
class Timing:
    """What each stage took in one run, by name, in the order of the chain.

    Attributes:
        seconds: on the clock.
        flop: floating-point operations; multiply and add counted as two.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    flop: dict[str, int] = field(default_factory=dict)
