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
from page4d_export.cost import Cost
from page4d_export.export_plan import ExportPlan

# Found on tiny at 112x112 and 518x518 and vits at 224x224, runs of 46 MB to 1.1 GB: the model is above each by 1 % to
# 16 %, since a user who plans with it wants what no run exceeds. A block's hidden tensor counts 8 times: with its GELU,
# q, k, v with their biases and the norm it is half of that, and ONNX Runtime's arena holds the first run's pieces
# beside the one piece it
# plans for every later run.
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
        """All of them."""
        return self.process + self.weights + self.buffers + self.scratch


def memory_of(plan: ExportPlan, widen: bool = False) -> Memory:
    """What a plan's engines take.

    In float32 this is ONNX Runtime on a processor and was held against runs. In 16 bits it is a statement about
    TensorRT plans that no run has
    tested: 16-bit weights and buffers, the scratch by the same formula, nothing for CUDA's context. `widen` is 16-bit
        engines on a processor,
    which keeps and computes all in float32.
    """
    manifest = plan.manifest("")
    item = 4 if widen else plan.precision.itemsize
    return Memory(
        process=PROCESS if item == 4 else 0,
        weights=sum(entry.weight_bytes for entry in manifest.stages) * item // plan.precision.itemsize,
        buffers=BufferPlan.make(manifest, widen).total,
        scratch=math.ceil(SCRATCH * item * max(entry.largest for entry in manifest.stages)),
    )


# ---- time


@dataclass(frozen=True)
class Work:
    """What a run does in the stages of one kind."""

    linears: int
    """FLOP of products with weights."""
    attention: int
    """FLOP of both products of attention."""
    calls: int


class _Unattending(Cost):
    """A cost without attention's products."""

    def scores(self, queries: int, keys: int) -> int:
        return 0


class _Linears(ExportPlan):
    """A plan whose FLOP are those of products with weights: what attention takes is then a difference, and no formula
    stands here twice."""

    @property
    def _cost(self) -> Cost:
        return _Unattending(self.config, self.layout, self.precision)


def work_of(plan: ExportPlan) -> dict[str, Work]:
    """The work of one run by kind of stage."""
    found: dict[str, Work] = {}
    linear = _Linears(plan.config, plan.layout, plan.precision, plan.keypoints, plan.encoder_images, plan.attention)
    for entry, without in zip(plan.stages(), linear.stages(), strict=True):
        past = found.get(entry.kind, Work(0, 0, 0))
        attention = (entry.flop - without.flop) * entry.calls
        found[entry.kind] = Work(
            past.linears + without.flop * entry.calls, past.attention + attention, past.calls + entry.calls
        )
    return found


class Rates(msgspec.Struct, frozen=True):
    """What a machine takes for work; 0 where the points show no such part."""

    linears: float
    """Seconds for a GFLOP of products with weights."""
    attention: float
    """Seconds for a GFLOP of attention."""
    call: float
    """Seconds for a call of a stage, whatever its size."""

    def seconds(self, works: dict[str, Work]) -> float:
        """Of a run."""
        return sum(float(_row(work) @ (self.linears, self.attention, self.call)) for work in works.values())


def _row(work: Work) -> NDArray[np.float64]:
    return np.array([work.linears / 1e9, work.attention / 1e9, work.calls])


def fit_rates(points: Sequence[tuple[dict[str, Work], dict[str, float]]]) -> Rates:
    """Rates from the work and the seconds of points, each by kind of stage.

    Every kind of every point is an equation, divided by the seconds of its point: a run of a second counts as much as
        one of a minute.
    """
    rows = [
        (_row(works[kind]) / sum(seconds.values()), seconds[kind] / sum(seconds.values()))
        for works, seconds in points
        for kind in works
    ]
    found = least_squares(np.array([row for row, _ in rows]), np.array([share for _, share in rows]))
    return Rates(*map(float, found))


def least_squares(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The x of no negative number for which |a x - b| is least: a `[m,n]` of few columns, b `[m]`, x `[n]`.

    The best x is the plain solution over the columns where it is positive; with three columns all choices of them can
    be tried.
    """
    best, least = np.zeros(a.shape[1]), float(b @ b)
    scale = np.maximum(
        np.abs(a).max(axis=0, initial=0), np.finfo(float).tiny
    )  # columns of very different size are told apart
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
