"""A machine's limits, measured, and the share of them that a part of the network reaches."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from page4d.manifest import StageEntry
from page4d.precision import DTYPE_BYTES, Precision
from page4d_export.plan.export_plan import ExportPlan

_TRIES, _ENOUGH = 10, 1.0  # tries, and seconds after which there is no further one
_SIDE = {"cuda": 8192, "cpu": 1024}  # of the square matrices
_COPIED = {"cuda": 1 << 30, "cpu": 256 << 20}  # bytes: larger than any cache


def bytes_of(entry: StageEntry) -> int:
    """Bytes that all calls of a stage move at least: weights, inputs and outputs once a call."""
    return entry.calls * (
        entry.weight_bytes
        + sum(math.prod(spec.shape) * DTYPE_BYTES[spec.dtype] for spec in (*entry.inputs, *entry.outputs))
    )


def by_kind(plan: ExportPlan) -> dict[str, list[StageEntry]]:
    """A plan's stages by kind, in the order they first run."""
    kinds: dict[str, list[StageEntry]] = defaultdict(list)
    for entry in plan.stages():
        kinds[entry.kind].append(entry)
    return kinds


def gflop_of(entries: Iterable[StageEntry]) -> float:
    """FLOP of all calls of some stages, in units of 10^9."""
    return sum(entry.flop * entry.calls for entry in entries) / 1e9


@dataclass(frozen=True)
class Roofline:
    """FLOP per second of a large matrix product, and bytes per second read and written by a large copy."""

    flop: float
    bytes: float

    def seconds(self, flop: float, moved: float) -> float:
        """The least time for so many FLOP and bytes: of the two, what takes longer."""
        return max(flop / self.flop, moved / self.bytes)

    def share(self, entries: Iterable[StageEntry], seconds: float) -> float:
        """The share of the limit that stages reach which take so long together: 1 is all that the machine can do."""
        return sum(self.seconds(entry.flop * entry.calls, bytes_of(entry)) for entry in entries) / seconds

    @classmethod
    def measured(cls, precision: Precision, device: str) -> Roofline:
        """The best of some tries, with the threads that PyTorch has.

        In fp8 the products are 8-bit, though a stage's attention is not. In int8 they are float32's: PyTorch has no
        fast 8-bit ones on every CPU, so that a share may be above 1.
        """
        synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
        side, size = _SIDE[device], _COPIED[device]
        product = _best(_product(precision, side, device), synchronize)
        source = torch.zeros(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copy = _best(lambda: target.copy_(source), synchronize)
        return cls(2 * side**3 / product, 2 * size / copy)


def _product(precision: Precision, side: int, device: str) -> Callable[[], object]:
    a = torch.randn(side, side, device=device)
    if precision is Precision.FP8:
        eight, scale = a.to(torch.float8_e4m3fn), torch.ones((), device=device)
        return lambda: torch._scaled_mm(eight, eight.t(), scale, scale, out_dtype=torch.float16)
    narrow = a.to(getattr(torch, precision.tokens))
    return lambda: narrow @ narrow


def _best(act: Callable[[], object], synchronize: Callable[[], object]) -> float:
    best, began = math.inf, time.perf_counter()
    for number in range(_TRIES):
        if number and time.perf_counter() - began > _ENOUGH:
            break
        synchronize()
        started = time.perf_counter()
        act()
        synchronize()
        best = min(best, time.perf_counter() - started)
    return best
