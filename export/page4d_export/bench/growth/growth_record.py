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

    @property
    def published(self) -> Published | None:
        """The authors' own figures."""
        return PUBLISHED.get(self.preset)


class Published(msgspec.Struct, frozen=True):
    """Time and memory over frames, as a model's authors give them: three values of equal index belong together."""

    frames: tuple[int, ...]
    seconds: tuple[float, ...]
    gigabytes: tuple[float, ...]
    """10^9 bytes."""
    of: str
    """What was measured, where, and who says so."""


PUBLISHED = {
    "vggt": Published(
        frames=(1, 2, 4, 8, 10, 20),
        seconds=(0.04, 0.05, 0.07, 0.11, 0.14, 0.31),
        gigabytes=(1.88, 2.07, 2.45, 3.23, 3.63, 5.58),
        of="without heads, on an H100 with Flash Attention 3, by VGGT's README",
    )
}
"""By preset. Pi3's authors give no times over frames."""
