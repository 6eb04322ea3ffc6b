"""The engines' chain on a GPU beside the reference model in PyTorch, eager and compiled: in turn, in one process."""

from __future__ import annotations

import logging
import pathlib
import statistics
import tempfile
from collections.abc import Callable

import msgspec
import numpy as np
import torch

from page4d.accuracy import compare
from page4d.errors import MissingBackendError, Page4DError
from page4d.layout import Layout
from page4d.manifest import Accuracy, StageEntry
from page4d.model import Page4D
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import Progress
from page4d_engines import console
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.pipeline import Pipeline
from page4d_engines.tensorrt.builder import BuildOptions
from page4d_engines.tensorrt.plans import PlanBuildRequest, build_into, library_for
from page4d_export.bench.cells import extremes, versions_line
from page4d_export.bench.chain_sides import Arrays, Eager, Engines
from page4d_export.bench.roofline import Roofline, by_kind, bytes_of, gflop_of
from page4d_export.exporter import versions, write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_clip import SampleClip
from page4d_plugins.bench.timing import Timings, interleave, spread
from page4d_plugins.driver import capability_of

_LOG = logging.getLogger("page4d.bench")
ENGINES = "engines"
EAGER = "PyTorch"
COMPILED = "torch.compile"


class Side(msgspec.Struct, frozen=True):
    """One way through the whole network: frames on the host in, mask and kept layers on the host out."""

    name: str
    milliseconds: float
    """Median of the rounds."""
    spread: tuple[float, float]
    speedup: float
    """Median, round by round, of its time over the engines': above 1 the engines are faster."""
    speedup_spread: tuple[float, float]


class Part(msgspec.Struct, frozen=True):
    """One kind of stage."""

    kind: str
    gflop: float
    engines: float
    """Milliseconds by events on the GPU, median."""
    eager: float
    """The same of PyTorch."""
    tflops: float
    """The engines' rate."""
    gbyte: float
    """Bytes that it moves at least, in 10^9: weights, inputs and outputs, once a call."""
    share: float
    """Share of the roofline: the time that its FLOP or its bytes, whichever takes longer, would take at the measured
    rates, over the engines' time."""


class GpuChainBenchmark(msgspec.Struct, frozen=True):
    """A comparison, and what it ran on."""

    device: str
    layout: Layout
    preset: str
    precision: Precision
    backend: str
    """Description of the engines' backend."""
    rounds: int
    product_tflops: float
    """Rate of an 8192 x 8192 x 8192 matrix product of the same type, in fp8 of 8-bit values."""
    copy_gbytes: float
    """Read and written per second by a large copy on the device."""
    sides: list[Side]
    parts: list[Part]
    whole_tflops: float
    whole_share: float
    between: float
    """Share of the chain's time in which no kernel ran and nothing was copied, by the profiler; NaN where it saw
    nothing."""
    differences: dict[str, Accuracy]
    """The engines' results against eager PyTorch's, both in the same precision; fp8 against float16."""
    absent: dict[str, str]
    """Sides that could not run, and why."""
    versions: dict[str, str]


def compare_gpu_chain(
    plan: ExportPlan, preset: str, rounds: int, backend: Backend, progress: Progress, device: str = "cuda"
) -> GpuChainBenchmark:
    """Export the plan, build it, then run all sides in turn; the first round is not counted.

    Args:
        plan: in 16 bits or fp8; PyTorch computes the latter in float16.
        preset: its name.
        rounds: that are counted.
        backend: of the engines; `auto` takes TensorRT where plans can be built and loaded, else ONNX Runtime's CUDA
            provider.
        progress: called as the work goes on.
        device: of PyTorch's sides.

    Raises:
        MissingBackendError: no backend runs on this GPU.
    """
    progress.note("exporting", 0.0)
    model = Page4D(plan.config)
    values = SampleClip.rendered(plan.layout).values
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_unverified(model, plan, folder)
        engines = Engines(_pipeline(folder, plan, backend, absent, progress), values)
        eager = Eager(model, plan.precision, device)
        sides = {ENGINES: engines.sample, EAGER: lambda: eager.sample(values)}
        progress.note("compiling", 0.2)
        try:
            compiled = _compiled(model, plan.precision, device, values)
            sides[COMPILED] = lambda: compiled.sample(values)
        except Exception as error:  # whatever its compilers raise
            absent[COMPILED] = str(error).splitlines()[0]
        differences = _differences(engines.run(), eager.run(values))
        timings = interleave(sides, rounds, progress=progress.part(0.3, 1.0))
        roofline = Roofline.measured(plan.precision, device)
        rate = roofline.flop / 1e12
        whole = gflop_of(plan.stages()) / timings.median(ENGINES) / 1e3
        return GpuChainBenchmark(
            device=torch.cuda.get_device_name() if device == "cuda" else device,
            layout=plan.layout,
            preset=preset,
            precision=plan.precision,
            backend=engines.pipeline.described,
            rounds=rounds,
            product_tflops=rate,
            copy_gbytes=roofline.bytes / 1e9,
            sides=[_side(name, timings) for name in timings.samples],
            parts=[_part(kind, entries, roofline, timings) for kind, entries in by_kind(plan).items()],
            whole_tflops=whole,
            whole_share=whole / rate,
            between=_idle_share(engines.run, device),
            differences=differences,
            absent=absent,
            versions=versions(),
        )


def _compiled(model: Page4D, precision: Precision, device: str, values: Arrays) -> Eager:
    """The model in compiled PyTorch, after a run on the clip."""
    compiled = Eager(model, precision, device)
    compiled.compile()
    compiled.run(values)
    return compiled


def _side(name: str, timings: Timings[str]) -> Side:
    milliseconds = [1e3 * seconds for seconds in timings.times(name)]
    ratios = timings.ratios(name, ENGINES)
    return Side(
        name=name,
        milliseconds=statistics.median(milliseconds),
        spread=spread(milliseconds),
        speedup=statistics.median(ratios),
        speedup_spread=spread(ratios),
    )


def _part(kind: str, entries: list[StageEntry], roofline: Roofline, timings: Timings[str]) -> Part:
    seconds = timings.median(ENGINES, kind)
    return Part(
        kind=kind,
        gflop=gflop_of(entries),
        engines=1e3 * seconds,
        eager=1e3 * timings.median(EAGER, kind),
        tflops=gflop_of(entries) / seconds / 1e3,
        gbyte=sum(map(bytes_of, entries)) / 1e9,
        share=roofline.share(entries, seconds),
    )


def print_gpu_chain(result: GpuChainBenchmark) -> None:
    """Sides, then parts, on stdout."""
    out = console.table_console()
    title = f"{result.device}: {result.preset} {result.layout} {result.precision}, medians of {result.rounds}"
    table = console.table(title, [""], ["ms a window", "from .. to", "engines are times as fast", "from .. to"])
    for side in result.sides:
        table.add_row(
            f"{side.name}: {result.backend}" if side.name == ENGINES else side.name,
            f"{side.milliseconds:.1f}",
            extremes(side.spread, 1),
            f"{side.speedup:.2f}",
            extremes(side.speedup_spread),
        )
    out.print(table)
    parts = console.table(None, ["part"], ["GFLOP", "engines ms", "PyTorch ms", "TFLOP/s", "GB", "of the roofline"])
    for row in result.parts:
        parts.add_row(
            row.kind,
            f"{row.gflop:.0f}",
            f"{row.engines:.2f}",
            f"{row.eager:.2f}",
            f"{row.tflops:.0f}",
            f"{row.gbyte:.2f}",
            f"{row.share:.0%}",
        )
    out.print(parts)
    out.print(
        f"whole: {result.whole_tflops:.0f} TFLOP/s, {result.whole_share:.0%} of a large product's"
        f" {result.product_tflops:.0f}; idle {result.between:.1%}"
    )
    for name, accuracy in result.differences.items():
        out.print(
            f"engines against PyTorch, {name}: relative L2 {accuracy.relative_l2:.1e}, {accuracy.nans} not finite"
        )
    for name, reason in result.absent.items():
        out.print(f"missing: {name}: {reason}", markup=False)
    out.print(versions_line(result.versions))


def _pipeline(
    folder: pathlib.Path, plan: ExportPlan, backend: Backend, absent: dict[str, str], progress: Progress
) -> Pipeline:
    """The first backend that runs; why others do not goes to `absent`."""
    if backend is Backend.ONNXRUNTIME:
        return Pipeline.load(folder, backend)
    for candidate in (Backend.TENSORRT, Backend.CUDA) if backend is Backend.AUTO else (backend,):
        try:
            if candidate is Backend.TENSORRT:
                library = library_for(None)
                library.require_on(capability_of(0))
                native = plan.attention is AttentionChoice.NATIVE
                request = PlanBuildRequest(library, BuildOptions(), plan.precision, native)
                build_into(EngineFolder.open(folder), request, progress)
            return Pipeline.load(folder, candidate)
        except Page4DError as error:
            if backend is not Backend.AUTO:
                raise
            # part of the record, also where the next one runs
            absent[f"{ENGINES}, {candidate}"] = " ".join(str(error).split())
    raise MissingBackendError(
        "no engine runs on this GPU", got="; ".join(f"{name}: {reason}" for name, reason in absent.items())
    )


def _differences(ours: Arrays, theirs: Arrays) -> dict[str, Accuracy]:
    return {name: compare(ours[name].astype(np.float32), theirs[name]) for name in theirs}


def _idle_share(run: Callable[[], object], device: str) -> float:
    """Share of a run's span on the GPU that no kernel and no copy covers."""
    if device != "cuda":
        return float("nan")
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            run()
            torch.cuda.synchronize()
        spans = sorted(
            (event.time_range.start, event.time_range.end)
            for event in profiler.events()
            if event.device_type.name == "CUDA"
        )
    except Exception as error:  # another profiler may hold the GPU's counters
        _LOG.warning("no profile: %s", error)
        return float("nan")
    if not spans:
        return float("nan")
    covered, reached = 0.0, spans[0][0]
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return 1 - covered / max(reached - spans[0][0], 1e-9)
