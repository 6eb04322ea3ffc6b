"""How time and memory grow with T and V: measured as far as the machine allows, modelled beyond.

Memory is a sum: the process, weights, buffers, and the scratch of the largest stage. Seconds are FLOP over rates, of
products with weights and of attention, and a constant per call; non-negative least squares fits them to the measured
points. The models need no torch.
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from page4d.config import ModelConfig
from page4d.errors import OutOfMemoryError, UsageError
from page4d.files import save_tensors
from page4d.layout import Layout
from page4d.precision import Precision
from page4d.system.memory import available_memory
from page4d.system.progress import Progress
from page4d_export.bench.growth.growth_model import Rates, fit_rates, memory_of, work_of
from page4d_export.bench.growth.growth_plot import plot_growth
from page4d_export.bench.growth.growth_point import measured_apart
from page4d_export.bench.growth.growth_record import Cell, Fit, Growth, Point
from page4d_export.bench.plot_file import check_plot
from page4d_export.plan.export_plan import ExportPlan

TIMESTEPS, VIEWS = range(1, 25), range(1, 7)
_STEPS = (1.6, 2.6)  # times the FLOP of the point before, at least and at most where such a point exists
_GIB = 2**30


def plans_of(config: ModelConfig, height: int, width: int) -> list[ExportPlan]:
    """A float32 plan for every T of 1 to 24 and V of 1 to 6 that the model can see, by FLOP.

    A model of one timestep has V of 1 to 24.

    Raises:
        UsageError: height or width is no multiple of the patch size.
    """
    plans = []
    views = VIEWS if _sees(config, Layout(2, 1, height, width)) else TIMESTEPS
    for T, V in itertools.product(TIMESTEPS, views):
        layout = Layout(T, V, height, width)
        if _sees(config, layout):
            plans.append(ExportPlan.make(config, layout, Precision.FLOAT32))
    return sorted(plans, key=lambda plan: plan.flop)


def _sees(config: ModelConfig, layout: Layout) -> bool:
    """Whether the model takes such a window: published ones see one timestep, or one view."""
    try:
        config.require(layout)
    except UsageError:
        return False
    return True


def _grid(plans: Sequence[ExportPlan], rates: Rates) -> list[Cell]:
    cells = [
        Cell(
            T=plan.layout.T,
            V=plan.layout.V,
            gflop=plan.flop / 1e9,
            memory=memory_of(plan),
            seconds=rates.seconds(work_of(plan)),
        )
        for plan in plans
    ]
    return sorted(cells, key=lambda cell: (cell.T, cell.V))


# ---- measuring


def bench_growth(
    preset: str, height: int, width: int, threads: int, seconds: float, plot: pathlib.Path | None, progress: Progress
) -> Growth:
    """Export and run points of growing FLOP in float32, each in a process of its own, then model all T and V.

    Args:
        preset: model size; its weights are seeded.
        height, width: of the images, in pixels.
        threads: of ONNX Runtime.
        seconds: after which no further point is begun, exports included; one is measured in any case.
        plot: a PNG to write.
        progress: told what starts, and the share of the seconds that is gone.

    Raises:
        UsageError: a size, `threads` or `seconds` is not allowed, or `plot` is no .png in an existing folder.
        OutOfMemoryError: not even the smallest point fits.
        MissingBackendError: a plot without matplotlib.
    """
    if threads < 1 or seconds <= 0:
        raise UsageError("--threads is 1 or more, --seconds above 0", got=f"{threads}, {seconds:g}")
    if plot is not None:
        check_plot(plot)
    config = ModelConfig.preset(preset)
    plans = plans_of(config, height, width)
    points, stopped = _measured(config, ladder(plans), threads, seconds, progress)
    fit = _fit(points, {(plan.layout.T, plan.layout.V): plan for plan in plans})

    from page4d_export.exporter import versions

    growth = Growth(
        preset=preset,
        height=height,
        width=width,
        precision=Precision.FLOAT32,
        threads=threads,
        points=points,
        grid=_grid(plans, fit.rates),
        fit=fit,
        stopped=stopped,
        versions=versions(),
    )
    if plot is not None:
        plot_growth(growth, plot)
    return growth


def ladder(plans: Sequence[ExportPlan]) -> list[ExportPlan]:
    """The plans to measure, of plans by growing FLOP: each has about twice the FLOP of the one before.

    They have many timesteps and many views in turn, which tells attention from the rest: of clips with equal FLOP, one
    of many timesteps and one view has the longer sequences.
    """
    chosen = [plans[0]]
    while later := [plan for plan in plans if plan.flop >= _STEPS[0] * chosen[-1].flop]:
        near = [plan for plan in later if plan.flop <= _STEPS[1] * chosen[-1].flop] or later[:1]
        many_timesteps = len(chosen) % 2 == 1
        by_shape = sorted(near, key=lambda plan: plan.layout.T / plan.layout.V, reverse=many_timesteps)
        chosen.append(by_shape[0])
    return chosen


def _measured(
    config: ModelConfig, plans: Sequence[ExportPlan], threads: int, seconds: float, progress: Progress
) -> tuple[list[Point], str]:
    """The points that time and memory allow, and why there are no more."""
    import torch

    from page4d.model import Page4D
    from page4d_export.exporter import write_unverified
    from page4d_export.sample_clip import SampleClip

    torch.set_num_threads(threads)
    started = time.monotonic()
    model = Page4D(config)
    points: list[Point] = []
    exporting = running = 0.0  # seconds of the point before, and of a GFLOP in it
    for plan in plans:
        layout, gone = plan.layout, time.monotonic() - started
        name, needed, gflop = f"T={layout.T} V={layout.V}", memory_of(plan).total, plan.flop / 1e9
        if points and gone + exporting + running * gflop > seconds:
            return points, f"{name} would exceed {seconds:g} s"
        free = available_memory()
        if needed > free:
            if not points:
                raise OutOfMemoryError(
                    "the smallest point does not fit this machine's memory",
                    got=f"{needed / _GIB:.1f} GiB",
                    allowed=f"{free / _GIB:.1f} GiB free",
                )
            return points, f"{name} would take {needed / _GIB:.1f} GiB, {free / _GIB:.1f} GiB are free"
        with tempfile.TemporaryDirectory() as temporary:
            folder, frames = pathlib.Path(temporary) / "engines", pathlib.Path(temporary) / "frames.safetensors"
            folder.mkdir()
            progress.note(f"exporting {name}", min(gone / seconds, 1.0))
            begun = time.monotonic()
            manifest = write_unverified(model, plan, folder)
            values = SampleClip.rendered(layout).values
            save_tensors(
                frames, {key: np.ascontiguousarray(value) for key, value in values.items() if manifest.reads(key)}
            )
            exporting = time.monotonic() - begun
            progress.note(f"running {name}", min((time.monotonic() - started) / seconds, 1.0))
            begun = time.monotonic()
            try:
                points.append(measured_apart(folder, frames, plan, threads))
            except OutOfMemoryError:
                if not points:
                    raise
                return points, f"{name} does not fit this machine's memory"
            running = (time.monotonic() - begun) / gflop
    return points, "every size was measured"


def _fit(points: Sequence[Point], plans: Mapping[tuple[int, int], ExportPlan]) -> Fit:
    works = {(point.T, point.V): work_of(plans[point.T, point.V]) for point in points}

    def rates_from(some: Iterable[Point]) -> Rates:
        return fit_rates([(works[point.T, point.V], point.kinds) for point in some])

    def deviation(rates: Rates, point: Point) -> float:
        return rates.seconds(works[point.T, point.V]) / point.seconds - 1

    rates = rates_from(points)
    memory = [memory_of(plans[point.T, point.V]).total / point.bytes - 1 for point in points]
    largest = max(points, key=lambda point: (point.T * point.V, point.seconds))
    others = [point for point in points if point is not largest]
    return Fit(
        rates=rates,
        deviation=max(abs(deviation(rates, point)) for point in points),
        held_out=f"T={largest.T} V={largest.V}" if others else "",
        held_out_deviation=deviation(rates_from(others), largest) if others else None,
        memory_deviation=(min(memory), max(memory)),
    )
