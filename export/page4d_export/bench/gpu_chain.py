"""The engines' chain on a GPU against the reference model in PyTorch there: eager and compiled, in turn, in one
process."""

from __future__ import annotations

import copy
import logging
import pathlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from page4d.accuracy import compare
from page4d.errors import MissingBackendError, Page4DError
from page4d.layout import Layout
from page4d.manifest import PREDICTIONS, Accuracy, StageEntry
from page4d.model import Page4D
from page4d.network.aggregator import Layer
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import Progress
from page4d_engines.backend import Backend
from page4d_engines.console import table_console
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.pipeline import Pipeline
from page4d_engines.tensorrt.builder import BuildOptions
from page4d_engines.tensorrt.plans import PlansBuild, build_into, library_for
from page4d_engines.timing import Timing
from page4d_export.bench.roofline import Roofline, bytes_of
from page4d_export.export_plan import Plan
from page4d_export.exporter import versions, write_unverified
from page4d_export.stage import cast
from page4d_export.verify import Frames
from page4d_plugins.driver import capability_of

_LOG = logging.getLogger("page4d.bench")
_PRODUCT = 8192  # rows and columns of the matrix product that the chip's rate is read off
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
    """Of PyTorch, as `engines`."""
    tflops: float
    """Of the engines."""
    gbyte: float
    """That it moves at least: weights, inputs and outputs, once a call."""
    share: float
    """Of the roofline: what its FLOP or its bytes, whichever takes longer, would take at the measured rates."""


class GpuChainBenchmark(msgspec.Struct, frozen=True):
    """A comparison, and what it ran on."""

    device: str
    layout: Layout
    preset: str
    precision: Precision
    backend: str
    """What the engines ran on, in words."""
    rounds: int
    product_tflops: float
    """Of an 8192 x 8192 x 8192 matrix product of the same type, in fp8 of 8-bit numbers."""
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
    plan: Plan,
    preset: str,
    rounds: int,
    backend: Backend,
    progress: Callable[[str, float], None],
    device: str = "cuda",
    build: bool = True,
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
        build: whether to build plans where the backend has them.

    Raises:
        MissingBackendError: no backend runs on this GPU.
    """
    progress("exporting", 0.0)
    model = Page4D(plan.config)
    values = Frames.rendered(plan.layout).values
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        write_unverified(model, plan, folder)
        pipeline = _engines(folder, plan, backend, build, absent, progress)
        eager = Eager(model, plan, device)
        timings: list[Timing] = []  # of every run of the engines
        sides: dict[str, Callable[[], dict[str, NDArray[Any]]]] = {
            ENGINES: lambda: _results(pipeline, values, timings),
            EAGER: lambda: eager.run(values),
        }
        progress("compiling", 0.2)
        try:
            compiled = Eager(model, plan, device)
            compiled.compile()
            compiled.run(values)
            sides[COMPILED] = lambda: compiled.run(values)
        except Exception as error:  # whatever its compilers raise
            absent[COMPILED] = str(error).splitlines()[0]
        differences = _differences(sides[ENGINES](), sides[EAGER]())
        wall: dict[str, list[float]] = defaultdict(list)
        parts: dict[str, dict[str, list[float]]] = {ENGINES: defaultdict(list), EAGER: defaultdict(list)}
        for number in range(rounds + 1):
            progress(f"round {number} of {rounds}", 0.3 + 0.7 * number / (rounds + 1))
            for name, run in sides.items():
                _synchronize(device)
                started = time.perf_counter()
                run()
                taken = time.perf_counter() - started
                if number:
                    wall[name].append(1e3 * taken)
            if number:
                for kind, seconds in _by_kind(plan, timings[-1]).items():
                    parts[ENGINES][kind].append(1e3 * seconds)
                for kind, seconds in eager.seconds().items():
                    parts[EAGER][kind].append(1e3 * seconds)
        roofline = Roofline.measured(plan.precision, device)
        rate = roofline.flop / 1e12
        between = _between(lambda: _results(pipeline, values, timings), device)
        described = pipeline.described
    flop: dict[str, float] = defaultdict(float)
    entries: dict[str, list[StageEntry]] = defaultdict(list)
    for entry in plan.stages():
        flop[entry.kind] += entry.flop * entry.calls
        entries[entry.kind].append(entry)
    medians = {kind: statistics.median(times) for kind, times in parts[ENGINES].items()}
    rows = [
        Part(
            kind,
            count / 1e9,
            medians[kind],
            statistics.median(parts[EAGER][kind]),
            count / medians[kind] / 1e9,
            sum(map(bytes_of, entries[kind])) / 1e9,
            roofline.share(entries[kind], medians[kind] / 1e3),
        )
        for kind, count in flop.items()
    ]
    whole = sum(flop.values()) / statistics.median(wall[ENGINES]) / 1e9
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return GpuChainBenchmark(
        name,
        plan.layout,
        preset,
        plan.precision,
        described,
        rounds,
        rate,
        roofline.bytes / 1e9,
        [_side(name, times, wall[ENGINES]) for name, times in wall.items()],
        rows,
        whole,
        whole / rate,
        between,
        differences,
        absent,
        versions(),
    )


def print_gpu_chain(found: GpuChainBenchmark) -> None:
    """Sides, then parts, on stdout."""
    from rich.table import Table

    console = table_console()
    title = f"{found.device}: {found.preset} {found.layout} {found.precision}, medians of {found.rounds}"
    table = Table(title=title, title_justify="left")
    for column in ("", "ms a window", "from .. to", "engines are times as fast", "from .. to"):
        table.add_column(column, justify="left" if column == "" else "right")
    for side in found.sides:
        low, high = side.spread
        cells = (
            f"{side.milliseconds:.1f}",
            f"{low:.1f} .. {high:.1f}",
            f"{side.speedup:.2f}",
            f"{side.speedup_spread[0]:.2f} .. {side.speedup_spread[1]:.2f}",
        )
        table.add_row(f"{side.name}: {found.backend}" if side.name == ENGINES else side.name, *cells)
    console.print(table)
    parts = Table()
    for column in ("part", "GFLOP", "engines ms", "PyTorch ms", "TFLOP/s", "GB", "of the roofline"):
        parts.add_column(column, justify="left" if column == "part" else "right")
    for row in found.parts:
        parts.add_row(
            row.kind,
            f"{row.gflop:.0f}",
            f"{row.engines:.2f}",
            f"{row.eager:.2f}",
            f"{row.tflops:.0f}",
            f"{row.gbyte:.2f}",
            f"{row.share:.0%}",
        )
    console.print(parts)
    console.print(
        f"whole: {found.whole_tflops:.0f} TFLOP/s, {found.whole_share:.0%} of a large product's"
        f" {found.product_tflops:.0f}; idle {found.between:.1%}"
    )
    for name, accuracy in found.differences.items():
        console.print(
            f"engines against PyTorch, {name}: relative L2 {accuracy.relative_l2:.1e}, {accuracy.nans} not finite"
        )
    for name, reason in found.absent.items():
        console.print(f"missing: {name}: {reason}", markup=False)
    console.print(", ".join(f"{name} {version}" for name, version in found.versions.items()))


def _engines(
    folder: pathlib.Path,
    plan: Plan,
    backend: Backend,
    build: bool,
    absent: dict[str, str],
    progress: Callable[[str, float], None],
) -> Pipeline:
    if backend is Backend.ONNXRUNTIME:
        return Pipeline.load(folder, backend)
    for candidate in (Backend.TENSORRT, Backend.CUDA) if backend is Backend.AUTO else (backend,):
        try:
            if candidate is Backend.TENSORRT and build:
                library = library_for(None)
                library.require_on(capability_of(0))
                wish = PlansBuild(library, BuildOptions(), plan.precision, plan.attention is AttentionChoice.NATIVE)
                build_into(EngineFolder.open(folder), wish, Progress(progress))
            return Pipeline.load(folder, candidate)
        except Page4DError as error:
            if backend is not Backend.AUTO:
                raise
            absent[f"{ENGINES}, {candidate}"] = " ".join(
                str(error).split()
            )  # part of the record, also where the next one runs
    raise MissingBackendError(
        "no engine runs on this GPU", got="; ".join(f"{name}: {reason}" for name, reason in absent.items())
    )


def _results(pipeline: Pipeline, values: dict[str, NDArray[Any]], timings: list[Timing]) -> dict[str, NDArray[Any]]:
    reads = pipeline.manifest.reads
    names = {"mask_ext": "mask_ext", "keypoints": "keypoints", "fundamental": "cameras"}
    given: dict[str, Any] = {argument: values[name] for name, argument in names.items() if reads(name)}
    result = pipeline.run(values["images"], **given)
    timings.append(result.timing)
    return result.tensors()


class Eager:
    """The reference model in PyTorch on a device, in the plan's precision."""

    def __init__(self, model: Page4D, plan: Plan, device: str) -> None:
        self._device = device
        self._model = cast(copy.deepcopy(model), plan.precision).to(device)
        self._takes_mask = plan.config.takes_mask
        self._events: list[tuple[str, Any, Any]] = []
        self._hooks = []
        parts: list[tuple[str, Any]] = [
            (kind, getattr(self._model, kind)) for kind in ("encoder", "mask_head", *PREDICTIONS)
        ]
        layers = [child for child in self._model.modules() if isinstance(child, Layer)]
        parts += [(kind, getattr(layer, kind)) for layer in layers for kind in ("view_sa", "time_sa", "global_sa")]
        self._parts = [(kind, module) for kind, module in parts if module is not None]
        for kind, module in self._parts:
            self._hooks += [
                module.register_forward_pre_hook(lambda *_: self._begin()),
                module.register_forward_hook(lambda *_, kind=kind: self._end(kind)),
            ]

    def compile(self) -> None:
        """Compile every block; parts are no longer timed."""
        for hook in self._hooks:
            hook.remove()
        for _, module in self._parts:
            module.compile()

    def run(self, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """From frames on the host to results on the host."""
        self._events.clear()
        with torch.inference_mode():
            mask_ext = torch.from_numpy(values["mask_ext"]) if self._takes_mask else None
            out = self._model(torch.from_numpy(values["images"]).to(self._device), mask_ext)
            found = {} if out.mask is None else {"mask": out.mask.float().cpu().numpy()}
            return found | {f"layers.{i}": layer.cpu().float().numpy() for i, layer in out.layers.items()}

    def seconds(self) -> dict[str, float]:
        """Of each kind in the last run."""
        _synchronize(self._device)
        found: dict[str, float] = defaultdict(float)
        for kind, begin, end in self._events:
            found[kind] += begin.elapsed_time(end) / 1e3 if self._device == "cuda" else end - begin
        return found

    def _begin(self) -> None:
        self._started = self._now()

    def _end(self, kind: str) -> None:
        self._events.append((kind, self._started, self._now()))

    def _now(self) -> Any:
        if self._device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _by_kind(plan: Plan, timing: Timing) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for entry in plan.stages():
        found[entry.kind] += timing.seconds[entry.name]
    return found


def _differences(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]) -> dict[str, Accuracy]:
    return {name: compare(ours[name].astype(np.float32), theirs[name]) for name in theirs}


def _side(name: str, times: Sequence[float], engines: Sequence[float]) -> Side:
    ratios = [theirs / ours for theirs, ours in zip(times, engines, strict=True)]
    return Side(
        name, statistics.median(times), (min(times), max(times)), statistics.median(ratios), (min(ratios), max(ratios))
    )


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _between(run: Callable[[], object], device: str) -> float:
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
