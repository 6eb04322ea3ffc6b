"""The gate: every exported stage runs in ONNX Runtime beside the reference model, and must agree with it."""

from __future__ import annotations

import itertools
import math
import pathlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from page4d.accuracy import compare, sampled
from page4d.config import GlobalStrategy
from page4d.errors import AccuracyError
from page4d.layout import Layout
from page4d.manifest import Accuracy, StageEntry
from page4d.model import Page4D
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip, Values
from page4d_export.stage_runner import ReferenceChain, StageChain, run_engine

# the reference runs once, an engine twice: on the reference's inputs, and on what the engines before it made
RUNS = 3
TOO_LONG = 600.0  # seconds of verification above which a smaller layout is verified instead
AFFORDABLE = 200.0  # seconds that the smaller layout may take
_IMAGE_SCALES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)  # of a smaller layout's images

# A token's norm has an error of at most a tenth of its stage's tolerance: measured are 2e-7, 4e-4, 3e-3 in float32,
# float16, bfloat16
DOUBT = 0.1


@dataclass(frozen=True)
class Verified:
    """Accuracy of one stage by output: alone, and at the end of the engines' own chain."""

    stage: str
    alone: dict[str, Accuracy]
    chained: dict[str, Accuracy]
    expected: dict[str, NDArray[np.float32]]
    """A sample of the reference's outputs."""
    ties: float
    """As `ties` of the manifest's stage."""
    exact: dict[str, Accuracy]
    """With sparse attention: of the engines' own chain against the reference that reads every key."""


def verify(
    model: Page4D,
    plan: ExportPlan,
    folder: pathlib.Path,
    clip: SampleClip,
    tolerance: float,
    progress: Progress = SILENT,
) -> Iterator[Verified]:
    """Run the plan's exported stages, `<folder>/<stage>.onnx`, beside the reference, one after the other.

    16-bit engines are run with every result rounded as their graph types it. Yields a stage's figures before the next
    one starts.

    With sparse attention the reference is as sparse as the engines; a second one, which reads every key, is what
    `exact` compares with.

    Where landmarks are chosen by their tokens' norms, two that differ by less than rounding may change places, and no
    engine is wrong for it: a stage may be off by what that costs, too.

    Raises:
        AccuracyError: an output's relative L2 error is above what is allowed, or holds NaN or infinity.
    """
    reference, engines = ReferenceChain(model, plan, clip), StageChain(model, plan, clip)
    exact = ReferenceChain(model.exact(), plan.exact, clip) if plan.config.is_sparse else None
    for entry in plan.stages():
        progress.step(f"verifying {entry.name}")
        engine = OrtEngine(folder / f"{entry.name}.onnx", rounding=plan.precision.has_16_bits)
        inputs = reference.inputs(entry)
        alone = run_engine(engine, entry, inputs)
        chained = engines.store(entry, run_engine(engine, entry, engines.inputs(entry)))
        expected = reference.run(entry)
        entry = msgspec.structs.replace(entry, ties=_ties(reference, plan, entry, inputs, expected))
        accuracies = _compared(alone, expected)
        _require(entry, accuracies, entry.allowed(tolerance), plan.precision)
        yield Verified(
            stage=entry.name,
            alone=accuracies,
            chained=_compared(chained, expected),
            expected={name: sampled(output) for name, output in expected.items()},
            ties=entry.ties,
            exact={} if exact is None else _compared(chained, exact.run(entry)),
        )


def _compared(outputs: Values, expected: Values) -> dict[str, Accuracy]:
    return {name: compare(outputs[name], expected[name], name) for name in expected}


def _require(entry: StageEntry, accuracies: dict[str, Accuracy], allowed: float, precision: Precision) -> None:
    for output, accuracy in accuracies.items():
        if not accuracy.relative_l2 <= allowed or accuracy.nans:
            raise AccuracyError(
                f"stage {entry.name} departs from the reference in its output {output!r}",
                got=(
                    f"relative L2 {accuracy.relative_l2:.2e}, cosine {accuracy.cosine:.6f}, largest difference"
                    f" {accuracy.max_abs:.2e}, {accuracy.nans} NaN"
                ),
                allowed=f"relative L2 up to {allowed:.0e} in {precision}, no NaN",
                hint="another precision (--bf16, or float32 without a flag), or --tolerance if you know why",
            )


def _ties(reference: ReferenceChain, plan: ExportPlan, entry: StageEntry, inputs: Values, expected: Values) -> float:
    """The relative L2 difference that it makes when landmarks of equal confidence, but for rounding, change places."""
    chooses = entry.kind == "global_sa" and plan.config.global_strategy is GlobalStrategy.LANDMARK
    if not chooses or plan.keypoints:  # keypoints have the same values everywhere
        return 0.0
    doubt = DOUBT * Precision(plan.precision.tokens).tolerance  # whatever type the products were quantized to
    swapped = reference.outputs(entry, inputs, doubt=doubt)
    return max(accuracy.relative_l2 for accuracy in _compared(swapped, expected).values())


def affordable_layout(plan: ExportPlan, too_long: float = TOO_LONG, budget: float = AFFORDABLE) -> Layout:
    """The layout to verify at: the plan's own, or where that takes too long on this machine, a smaller one.

    A smaller layout has the largest images that leave room for two timesteps and two views, then as many of these
    as there is time for.

    Args:
        plan: of the engines.
        too_long: seconds above which a smaller layout is taken.
        budget: seconds that the smaller one may take.
    """
    rate = matmul_rate() * 0.6  # attention, norms and copies run slower than the matrix product

    def seconds(layout: Layout) -> float:
        at = plan.at(layout)
        return (RUNS * at.flop + (at.exact.flop if plan.config.is_sparse else 0)) / rate

    own = plan.layout
    if seconds(own) <= too_long:
        return own
    for scale in _IMAGE_SCALES:
        height, width = (max(own.PATCH, round(side * scale / own.PATCH) * own.PATCH) for side in (own.H, own.W))
        grid = itertools.product(range(min(2, own.T), own.T + 1), range(min(2, own.V), own.V + 1))
        layouts = [Layout(T, V, height, width) for T, V in grid]
        costs = {layout: seconds(layout) for layout in layouts}
        affordable = {layout: cost for layout, cost in costs.items() if cost <= budget}
        if affordable:
            return max(affordable, key=lambda layout: affordable[layout])
    return min(costs, key=lambda layout: costs[layout])


def matmul_rate() -> float:
    """FLOP per second of a float32 matrix product on this machine."""
    size = 1024
    a = torch.rand(size, size)
    best = math.inf
    for _ in range(4):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
