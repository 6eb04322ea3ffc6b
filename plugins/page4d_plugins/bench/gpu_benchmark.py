"""The results of the comparison of attention kernels, as records."""

from __future__ import annotations

import msgspec

from page4d.errors import AccuracyError
from page4d_plugins.bench.sides import OURS

HOPPER_EXP2 = (474.0, 949.0)
"""TFLOP/s of attention with head dimension 64 that exponentials allow on an H100 or H200: alone in turn with the matrix
units, and wholly beside them. Arithmetic: 16 exp2 a clock on each of 132 multiprocessors at 1.755 GHz, 256 operations
of the matrix units for each, which take them as long."""


class Timed(msgspec.Struct, frozen=True):
    """One implementation of one form."""

    form: str
    sequences: int
    """Z."""
    name: str
    milliseconds: float
    """Time of one call: median over the rounds, and extremes."""
    spread: tuple[float, float]
    tflops: float
    """4 * queries * keys read * D * A * Z over the median."""
    of_product: float | None
    """Share of the rate of a large matrix product in the same run."""
    of_exp2: tuple[float, float] | None
    """Shares of `HOPPER_EXP2`."""
    of_sdpa: float | None
    """Rate over the baseline's: median of the rounds, and extremes. Above 1 it is faster."""
    of_sdpa_spread: tuple[float, float] | None
    baseline: str | None
    """The fastest of PyTorch's backends without bias, on as many queries and keys."""
    error: float
    """Largest relative L2 error of a sampled row against float64."""
    timed: str
    """As `Sampler.timed`."""


class Absent(msgspec.Struct, frozen=True):
    """An implementation that is not timed, and why."""

    form: str
    sequences: int
    name: str
    reason: str


class GpuBenchmark(msgspec.Struct, frozen=True):
    """A comparison, and what it ran on."""

    device: str
    capability: str
    versions: dict[str, str]
    dtype: str
    keys: int
    layout: dict[str, int]
    heads: int
    rounds: int
    tolerance: float
    product_tflops: float | None
    """Rate of an 8192 x 8192 x 8192 matrix product of the same type: median of the rounds."""
    exp2_tflops: tuple[float, float] | None
    """`HOPPER_EXP2`, on a Hopper."""
    timed: list[Timed]
    absent: list[Absent]

    @property
    def failures(self) -> list[Absent]:
        """This project's own sides that did not run or were wrong."""
        return [side for side in self.absent if side.name in OURS]

    def require(self) -> None:
        """Raise an AccuracyError where a side of this project failed."""
        if self.failures:
            lines = "; ".join(f"{side.form}, Z={side.sequences}, {side.name}: {side.reason}" for side in self.failures)
            raise AccuracyError(
                "attention kernels failed", got=lines, allowed=f"a row's relative error up to {self.tolerance:g}"
            )
