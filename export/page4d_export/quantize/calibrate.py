"""What int8 and fp8 have to know of a model's activations, measured on frames stage by stage before anything is
written."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from page4d.accuracy import compare
from page4d.manifest import StageEntry
from page4d.model import Page4D
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.export_plan import ExportPlan
from page4d_export.quantize import fp8, int8
from page4d_export.quantize.activation_stats import Seen, observe
from page4d_export.quantize.centering import Floats, Observed, exact_weights, is_centred
from page4d_export.quantize.linear_layers import Graph
from page4d_export.sample_clip import SampleClip, Values
from page4d_export.stage import stages_of
from page4d_export.stage_runner import StageChain, run_engine
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_export.tracing.trace_cache import TraceCache

_PRONE = 0.05  # error of a layer's product above which its activations are not quantised


class Scheme(Protocol):
    """A way to quantise: `int8`, `fp8`."""

    def weight(self, exact: Floats, moment: NDArray[np.floating[Any]] | None) -> Any:
        """A matrix `[K,N]` as it will be stored; with inputs of this moment `[K,K]`, so that its products change
        least."""

    def quantise(
        self,
        model: onnx.ModelProto,
        observed: Sequence[Observed],
        floating: Collection[int] = (),
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """A stage's linear layers, in place."""

    def error(self, x: Floats, exact: Floats, seen: Observed, shifted: bool) -> float:
        """What quantising a layer's activations costs."""


_SCHEMES: dict[Precision, Scheme] = {Precision.INT8: int8, Precision.FP8: fp8}


@dataclass(frozen=True)
class StageCalibration:
    """Of one stage.

    Attributes:
        scheme: how it is quantised.
        observed: of every linear layer's input, in the order they run.
        floating: layers by number whose activations are not quantised.
        layers: their names, in the same order.
        weights: their matrices as they will be stored, by name.
    """

    scheme: Scheme
    observed: tuple[Observed, ...]
    floating: frozenset[int]
    layers: tuple[str, ...]
    weights: Mapping[str, Any]

    def apply(self, model: onnx.ModelProto) -> None:
        """Quantise the stage's model, at this or another layout, in place."""
        self.scheme.quantise(model, self.observed, self.floating, self.weights)


@dataclass(frozen=True)
class Calibration:
    """Of a model; empty where nothing is quantised.

    Attributes:
        stages: those with linear layers, by name.
        traces: of the float32 stages, for their export to go on with.
    """

    stages: dict[str, StageCalibration] = field(default_factory=dict)
    traces: TraceCache = field(default_factory=TraceCache.of_environment)

    def change(self, stage: str) -> Callable[[onnx.ModelProto], None] | None:
        """What quantises a stage's model; None where it stays as it is."""
        return self.stages[stage].apply if stage in self.stages else None

    def floating(self, stage: str) -> tuple[str, ...]:
        """Matrices of a stage's layers whose activations are not quantised."""
        found = self.stages.get(stage)
        return () if found is None else tuple(found.layers[number] for number in sorted(found.floating))


def calibrate(
    model: Page4D,
    plan: ExportPlan,
    clip: SampleClip,
    tolerance: float,
    progress: Progress = SILENT,
    place: pathlib.Path | None = None,
) -> Calibration:
    """Run the float32 chain and choose what each stage quantises, by measured error.

    Args:
        model: the reference.
        plan: at the layout to measure at, in int8 or fp8.
        clip: of that layout.
        tolerance: of the relative L2 of a stage's outputs; a smaller one quantises fewer layers.
        progress: told of each stage.
        place: where float32 graphs are written for as long as they are needed; None: the system's folder for such.
    """
    exact = plan.in_precision(Precision.FLOAT32)
    chain = StageChain(model, exact, clip)
    found = Calibration()
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        folder = pathlib.Path(temporary)
        exporter = OnnxExporter(folder, model.config.head_dim, plan.attention, found.traces)
        for stage in stages_of(model, exact).values():
            progress.step(f"calibrating {stage.name}")
            path = exporter.write(stage)
            inputs = chain.inputs(stage.entry)
            outputs, seen = observe(path, stage.entry, inputs)
            if seen:
                found.stages[stage.name] = _choose(
                    _SCHEMES[plan.precision], path, stage.entry, inputs, outputs, seen, tolerance
                )
            chain.store(stage.entry, outputs)
            for file in folder.iterdir():
                file.unlink()
    return found


def _choose(
    scheme: Scheme,
    path: pathlib.Path,
    entry: StageEntry,
    inputs: Values,
    outputs: Values,
    seen: list[Seen],
    tolerance: float,
) -> StageCalibration:
    """Round the weights, and choose what else is quantised.

    Activations stay as they are where a layer's own error is large, then where they add most for the layer's size,
    until the stage is within its tolerance.
    """
    graph = Graph(onnx.load(path).graph)
    exact = exact_weights(graph)
    errors = [
        scheme.error(one.rows, exact[linear.weight], one.observed, is_centred(graph, number))
        for number, (linear, one) in enumerate(zip(graph.linears, seen, strict=True))
    ]
    observed, names = tuple(one.observed for one in seen), tuple(linear.weight for linear in graph.linears)
    moments: dict[str, NDArray[np.float32]] = {}
    for name, one in zip(names, seen, strict=True):  # a block that runs twice sees two inputs
        moments[name] = one.moment if name not in moments else moments[name] + one.moment
    weights = {name: scheme.weight(exact[name], moment) for name, moment in moments.items()}
    choice = lambda floating: StageCalibration(scheme, observed, frozenset(floating), names, weights)
    squared = lambda floating: _error(path, entry, choice(floating), inputs, outputs) ** 2
    floating = {number for number, found in enumerate(errors) if found > _PRONE}
    left = squared(floating)
    if left <= tolerance**2:
        return choice(floating)
    added = _added(graph, errors, set(range(len(names))) - floating, squared)
    for number in sorted(added, key=lambda number: -added[number] / exact[names[number]].size):
        floating.add(number)
        left -= added[number]
        if left <= tolerance**2 and (left := squared(floating)) <= tolerance**2:
            break
    return choice(floating)


def _added(
    graph: Graph, errors: Sequence[float], among: Collection[int], squared: Callable[[Collection[int]], float]
) -> dict[int, float]:
    """What the activations of each of some layers add to a stage's squared error, `squared` of what stays as it is.

    A layer's own error says little of what becomes of it: behind attention it may average out. So the layers of a kind
    are measured together, and share what that adds by the squares of their own.
    """
    everything = frozenset(range(len(errors)))
    least = squared(everything)
    added = dict.fromkeys(among, 0.0)
    for kind in dict.fromkeys(graph.linears[number].kind for number in among):
        alike = [number for number in among if graph.linears[number].kind == kind]
        together = max(squared(everything - set(alike)) - least, 0.0)
        own = sum(errors[number] ** 2 for number in alike)
        added |= {number: together * errors[number] ** 2 / own for number in alike if own > 0}
    return added


def _error(path: pathlib.Path, entry: StageEntry, choice: StageCalibration, inputs: Values, outputs: Values) -> float:
    proto = onnx.load(path)
    choice.apply(proto)
    target = path.with_name(f"quantised.{path.name}")
    onnx.save(proto, target, save_as_external_data=True, location=f"{target.name}.data", size_threshold=1024)
    del proto
    made = run_engine(OrtEngine(target), entry, inputs)
    for file in (target, target.with_name(f"{target.name}.data")):
        file.unlink(missing_ok=True)  # external data is added to a file that is there
    return max(compare(made[name], outputs[name]).relative_l2 for name in outputs)
