"""The models behind `growth`: bytes and seconds of a chain from its plan alone. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from page4d_engines.runtime.buffer_plan import BufferPlan
from page4d_export.plan.cost import Flop
from page4d_export.plan.export_plan import ExportPlan

# Fitted to runs of 46 MB to 1.1 GB: tiny at 112x112 and 518x518, vits at 224x224. The model is above each by 1 % to
# 16 %, since a user who plans with it wants what no run exceeds. A block's hidden tensor counts 8 times: half of it is
# the tensor with its GELU, q, k, v and the norm; the other half is ONNX Runtime's arena, which keeps the pieces of the
# first run beside the one piece that it plans for every later run.
SCRATCH = 8.0
PROCESS = 30 << 20
"""Bytes: sessions, graphs and thread pools, beside the interpreter and the libraries."""


# ---- memory


class Memory(msgspec.Struct, frozen=True):
    """Bytes that a chain takes, beside the interpreter's and its libraries'."""

    process: int
    weights: int
    buffers: int
    scratch: int

    @property
    def total(self) -> int:
        """The sum."""
        return self.process + self.weights + self.buffers + self.scratch


def memory_of(plan: ExportPlan) -> Memory:
    """The memory of a float32 plan's engines in ONNX Runtime on a CPU."""
    manifest = plan.manifest("")
    return Memory(
        process=PROCESS,
        weights=sum(entry.weight_bytes for entry in manifest.stages),
        buffers=BufferPlan.make(manifest).total,
        scratch=math.ceil(SCRATCH * 4 * max(entry.largest for entry in manifest.stages)),
    )


# ---- time


@dataclass(frozen=True)
class Work:
    """The work of a run in the stages of one kind."""

    flop: Flop
    calls: int

    @property
    def row(self) -> NDArray[np.float64]:
        """The factors of the rates: GFLOP of products with weights, of attention, and calls."""
        return np.array([self.flop.linears / 1e9, self.flop.attention / 1e9, self.calls])


def work_of(plan: ExportPlan) -> dict[str, Work]:
    """The work of one run by kind of stage."""
    works: dict[str, Work] = {}
    flop_by_stage = plan.flop_by_stage
    for entry in plan.stages():
        before = works.get(entry.kind, Work(Flop(0), 0))
        flop = before.flop + entry.calls * flop_by_stage[entry.name]
        works[entry.kind] = Work(flop, before.calls + entry.calls)
    return works


class Rates(msgspec.Struct, frozen=True):
    """The time that a machine takes for each kind of work; 0 where the points show none of it."""

    linears: float
    """Seconds for a GFLOP of products with weights."""
    attention: float
    """Seconds for a GFLOP of attention."""
    call: float
    """Seconds for a call of a stage, whatever its size."""

    def seconds(self, works: dict[str, Work]) -> float:
        """Modelled seconds of a run."""
        return sum(float(work.row @ (self.linears, self.attention, self.call)) for work in works.values())


def fit_rates(points: Sequence[tuple[dict[str, Work], dict[str, float]]]) -> Rates:
    """Rates from the work and the seconds of points, each by kind of stage.

    Every kind of every point is an equation, divided by the seconds of its point: a run of a second counts as much as
    one of a minute.
    """
    rows, shares = [], []
    for works, seconds in points:
        whole = sum(seconds.values())
        for kind, work in works.items():
            rows.append(work.row / whole)
            shares.append(seconds[kind] / whole)
    return Rates(*map(float, least_squares(np.array(rows), np.array(shares))))


def least_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x without negative elements for which |a x - b| is least: a `[m,n]` of few columns, b `[m]`, x `[n]`.

    The best x is the plain solution over the columns where it is positive; with three columns all choices of them can
    be tried.
    """
    best, least = np.zeros(a.shape[1]), float(b @ b)
    # columns of very different size are told apart
    scale = np.maximum(np.abs(a).max(axis=0, initial=0), np.finfo(float).tiny)
    for count in range(1, a.shape[1] + 1):
        for columns in map(list, itertools.combinations(range(a.shape[1]), count)):
            part = np.linalg.lstsq(a[:, columns] / scale[columns], b, rcond=None)[0]
            if (part < 0).any():
                continue
            x = np.zeros(a.shape[1])
            x[columns] = part / scale[columns]
            left = float(np.sum((a @ x - b) ** 2))
            if left < least:
                best, least = x, left
    return best
