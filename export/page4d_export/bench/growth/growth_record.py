"""What `page4d bench growth` measures and models, as records."""

from __future__ import annotations

import msgspec

from page4d.precision import Precision
from page4d_export.bench.growth.growth_model import Memory, Rates


class Cell(msgspec.Struct, frozen=True):
    """The model at one T and V."""

    T: int
    V: int
    gflop: float
    memory: Memory
    seconds: float


class Point(msgspec.Struct, frozen=True):
    """A run that was measured."""

    T: int
    V: int
    seconds: float
    """Median of the counted runs."""
    kinds: dict[str, float]
    """The same by kind of stage."""
    bytes: int
    """Most memory that the process held, above the interpreter and its libraries."""


class Fit(msgspec.Struct, frozen=True):
    """How well the models meet the measured points; shares, 0.1 is 10 %."""

    rates: Rates
    """From all points."""
    deviation: float
    """The largest of |modelled / measured - 1| of the seconds, over the points that the rates come from."""
    held_out: str
    """The point of the most frames; empty where no other was measured."""
    held_out_deviation: float | None
    """modelled / measured - 1 of its seconds, by rates from the other points alone: what to expect of the model where
    nothing was measured."""
    memory_deviation: tuple[float, float]
    """The least and the largest modelled / measured - 1 of the bytes; the model is not fitted to these points."""


class Growth(msgspec.Struct, frozen=True):
    """Time and memory over T and V."""

    preset: str
    height: int
    width: int
    precision: Precision
    threads: int
    points: list[Point]
    grid: list[Cell]
    fit: Fit
    stopped: str
    """Why no further point was measured."""
    versions: dict[str, str]

    @property
    def title(self) -> str:
        """Model, size, precision and threads, in a line."""
        return f"{self.preset} {self.height}x{self.width}, {self.precision}, {self.threads} threads"
