"""How time and memory grow with T and V: measured as far as the machine allows, modelled beyond.

Memory is a sum: the process, weights, buffers, and the scratch of the largest stage. Seconds are FLOP over rates, of
    matrix products with
weights and of attention, and a constant per call; non-negative least squares fits them to the measured points. The
models need no torch.
"""

from __future__ import annotations

import importlib
import itertools
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from page4d.config import ModelConfig
from page4d.errors import ExitCode, OutOfMemoryError, Page4DError, UsageError
from page4d.files import save_tensors
from page4d.layout import Layout
from page4d.precision import Precision
from page4d.system.memory import available_memory
from page4d_engines import console
from page4d_export.bench.growth.growth_model import Memory, Rates, Work, fit_rates, memory_of, work_of
from page4d_export.bench.growth.growth_plot import plot_growth
from page4d_export.bench.plot_file import check_plot
from page4d_export.export_plan import Plan

TIMES, VIEWS = range(1, 25), range(1, 7)
RUNS = 3
"""Of a point; the first is not counted: memory is touched for the first time in it."""

_STEPS = (1.6, 2.6)  # times the FLOP of the point before, at least and at most where such a point exists
_GIB = 2**30


class Cell(msgspec.Struct, frozen=True):
    """The model at one T and V."""

    T: int
    V: int
    gflop: float
    memory: Memory
    seconds: float | None
    """None where nothing was measured."""


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
    threads: int | None
    points: list[Point]
    grid: list[Cell]
    fit: Fit | None
    """None where nothing was measured."""
    stopped: str
    """Why no further point was measured."""
    versions: dict[str, str]

    @property
    def title(self) -> str:
        """What it is of, in a line."""
        alone = "modelled alone, as TensorRT plans" if self.precision.itemsize == 2 else "modelled alone"
        where = f"{self.threads} threads" if self.threads else alone
        return f"{self.preset} {self.height}x{self.width}, {self.precision}, {where}"


def modelled_growth(preset: str, height: int, width: int, precision: Precision) -> Growth:
    """The memory model alone, in any precision: nothing is measured, nothing imported but the plan. As `memory_of`
    without `widen`."""
    plans = plans_of(ModelConfig.preset(preset), height, width, precision)
    return Growth(preset, height, width, precision, None, [], _grid(plans, None), None, "", {})


def plans_of(config: ModelConfig, height: int, width: int, precision: Precision) -> list[Plan]:
    """A plan for every T of 1 to 24 and V of 1 to 6 that the model can see, by FLOP.

    Raises:
        UsageError: height or width is no multiple of the patch size.
    """
    found = []
    for T, V in itertools.product(TIMES, VIEWS):
        layout = Layout(T, V, height, width)
        try:
            config.require(layout)
        except UsageError:  # published models see one time, or one view
            continue
        found.append(Plan.make(config, layout, precision))
    return sorted(found, key=_flop)


def _flop(plan: Plan) -> int:
    return sum(entry.flop * entry.calls for entry in plan.stages())


def _grid(plans: Sequence[Plan], rates: Rates | None) -> list[Cell]:
    cells = [
        Cell(
            plan.layout.T,
            plan.layout.V,
            _flop(plan) / 1e9,
            memory_of(plan),
            None if rates is None else rates.seconds(work_of(plan)),
        )
        for plan in plans
    ]
    return sorted(cells, key=lambda cell: (cell.T, cell.V))


# ---- measuring


def bench_growth(
    preset: str,
    height: int,
    width: int,
    threads: int,
    seconds: float,
    plot: pathlib.Path | None,
    progress: Callable[[str, float], None],
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
        UsageError: a size or a number that is not allowed, or `plot` is no .png in a folder that exists.
        OutOfMemoryError: not even the smallest point fits.
        MissingBackendError: a plot without matplotlib.
    """
    if threads < 1 or seconds <= 0:
        raise UsageError("--threads is 1 or more, --seconds above 0", got=f"{threads}, {seconds:g}")
    if plot is not None:
        check_plot(plot)
    config = ModelConfig.preset(preset)
    plans = plans_of(config, height, width, Precision.FLOAT32)
    points, stopped = _measured(config, ladder(plans), threads, seconds, progress)
    works = {(plan.layout.T, plan.layout.V): work_of(plan) for plan in plans}
    bytes_of = {
        (plan.layout.T, plan.layout.V): memory_of(plan).total
        for plan in plans
        if (plan.layout.T, plan.layout.V) in {(p.T, p.V) for p in points}
    }
    fit = _fit(points, works, bytes_of)

    from page4d_export.exporter import versions

    found = Growth(
        preset,
        height,
        width,
        Precision.FLOAT32,
        threads,
        points,
        _grid(plans, fit.rates),
        fit,
        stopped,
        versions(),
    )
    if plot is not None:
        plot_growth(found, plot)
    return found


def ladder(plans: Sequence[Plan]) -> list[Plan]:
    """Of plans by growing FLOP, those to measure: each about twice the one before, in turn of many times and of many
    views.

    The turn tells attention from the rest: of as many FLOP, a long clip of one view has the longer sequences.
    """
    chosen = [plans[0]]
    flop = [_flop(plan) for plan in plans]
    reached = flop[0]
    while later := [(count, plan) for count, plan in zip(flop, plans, strict=True) if count >= _STEPS[0] * reached]:
        near = [(count, plan) for count, plan in later if count <= _STEPS[1] * reached] or later[:1]
        many_times = len(chosen) % 2 == 1
        reached, plan = max(near, key=lambda one: (one[1].layout.T / one[1].layout.V) ** (1 if many_times else -1))
        chosen.append(plan)
    return chosen


def _measured(
    config: ModelConfig, plans: Sequence[Plan], threads: int, seconds: float, progress: Callable[[str, float], None]
) -> tuple[list[Point], str]:
    """The points that time and memory allow, and why there are no more."""
    import torch

    from page4d.model import Page4D
    from page4d_export.exporter import write_unverified
    from page4d_export.verify import Frames

    torch.set_num_threads(threads)
    started = time.monotonic()
    model = Page4D(config)
    points: list[Point] = []
    exporting = running = 0.0  # seconds of the point before, and of a GFLOP in it
    for plan in plans:
        layout, gone = plan.layout, time.monotonic() - started
        name, needed, gflop = f"T={layout.T} V={layout.V}", memory_of(plan).total, _flop(plan) / 1e9
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
            progress(f"exporting {name}", min(gone / seconds, 1.0))
            begun = time.monotonic()
            manifest = write_unverified(model, plan, folder)
            given = Frames.rendered(layout).values
            save_tensors(
                frames, {key: np.ascontiguousarray(value) for key, value in given.items() if manifest.reads(key)}
            )
            exporting = time.monotonic() - begun
            progress(f"running {name}", min((time.monotonic() - started) / seconds, 1.0))
            begun = time.monotonic()
            try:
                points.append(_apart(folder, frames, plan, threads))
            except OutOfMemoryError:
                if not points:
                    raise
                return points, f"{name} does not fit this machine's memory"
            running = (time.monotonic() - begun) / gflop
    return points, "every size was measured"


class _Run(msgspec.Struct, frozen=True):
    """What a process of its own says."""

    runs: list[dict[str, float]]
    """Seconds by stage, and of the whole under an empty name."""
    bytes: int


def _apart(folder: pathlib.Path, frames: pathlib.Path, plan: Plan, threads: int) -> Point:
    """Run an engine folder in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "page4d_export.bench.growth.growth", str(folder), str(frames), str(threads)],
        capture_output=True,
        text=True,
    )
    layout = plan.layout
    if done.returncode in (ExitCode.OUT_OF_MEMORY, -9):  # -9: the kernel ended it for its memory
        raise OutOfMemoryError(
            f"the engines of T={layout.T} V={layout.V} do not fit this machine's memory",
            hint="a smaller --preset, --height or --width",
        )
    if done.returncode:
        raise Page4DError(
            f"the run of T={layout.T} V={layout.V} failed",
            got=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1],
        )
    said = msgspec.json.decode(done.stdout, type=_Run)
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0] * (RUNS - 1))
    for number, run in enumerate(said.runs[1:]):
        for entry in plan.stages():
            kinds[entry.kind][number] += run[entry.name]
    return Point(
        layout.T,
        layout.V,
        statistics.median(run[""] for run in said.runs[1:]),
        {kind: statistics.median(taken) for kind, taken in kinds.items()},
        said.bytes,
    )


def _fit(
    points: Sequence[Point], works: dict[tuple[int, int], dict[str, Work]], bytes_of: dict[tuple[int, int], int]
) -> Fit:
    rates = fit_rates([(works[p.T, p.V], p.kinds) for p in points])
    apart = lambda rates, p: rates.seconds(works[p.T, p.V]) / p.seconds - 1
    memory = [bytes_of[p.T, p.V] / p.bytes - 1 for p in points]
    held, named = max(points, key=lambda p: (p.T * p.V, p.seconds)), ""
    beyond: float | None = None
    if len(points) > 1:
        beyond = apart(fit_rates([(works[p.T, p.V], p.kinds) for p in points if p is not held]), held)
        named = f"T={held.T} V={held.V}"
    return Fit(rates, max(abs(apart(rates, p)) for p in points), named, beyond, (min(memory), max(memory)))


def peak_bytes() -> int:
    """The most memory that this process has held.

    Linux' own mark of the process where there is one: `ru_maxrss` is inherited from who started the process, torch and
    all.
    """
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_apart(folder: str, frames: str, threads: int) -> _Run:
    """What the process of a point does: load, run, look at the clock and the memory."""
    from safetensors.numpy import load_file

    from page4d_engines import Pipeline
    from page4d_engines.engine_folder import EngineFolder
    from page4d_engines.options import Backend
    from page4d_engines.ort.thread_pool import ThreadPool

    importlib.import_module("page4d_engines.runtime.host_chain")  # and what it imports: libraries are not counted
    pool = ThreadPool.of(threads, shared=True)  # as the command does
    before = peak_bytes()
    given: dict[str, Any] = load_file(frames)
    if "fundamental" in given:
        given["cameras"] = given.pop("fundamental")
    pipeline = Pipeline.of(EngineFolder.open(folder), Backend.ONNXRUNTIME, pool)
    runs = []
    for _ in range(RUNS):
        started = time.perf_counter()
        timing = pipeline.run(**given).timing
        runs.append({"": time.perf_counter() - started, **timing.seconds})
    return _Run(runs, peak_bytes() - before)


if __name__ == "__main__":

    def _body() -> None:
        console.write_json(run_apart(sys.argv[1], sys.argv[2], int(sys.argv[3])))

    raise SystemExit(console.run(_body))
