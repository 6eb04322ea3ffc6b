"""What int8 and fp8 have to know of a model's activations, measured on frames stage by stage before anything is written."""

from __future__ import annotations

import math
import pathlib
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from page4d.accuracy import compare
from page4d.manifest import StageEntry
from page4d.model import Page4D
from page4d.precision import Precision
from page4d_engines.ort_engine import OrtEngine
from page4d_export import fp8, int8
from page4d_export.centre import Floats, Observed, exact_weights, is_centred
from page4d_export.linears import Graph
from page4d_export.onnx_export import OnnxExporter, Traces
from page4d_export.plan import Plan
from page4d_export.stage import stages_of
from page4d_export.verify import Frames, Values, gather, start

_ROWS = 256  # of a layer's input, in all, on which its error is measured
_PRONE = 0.05  # error of a layer's product above which its activations are not quantised
_STATISTICS = ("mean", "low", "high", "rows")


class Scheme(Protocol):
    """A way to quantise: `int8`, `fp8`."""

    def quantise(self, model: onnx.ModelProto, observed: Sequence[Observed], floating: Collection[int] = ()) -> None:
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
    """

    scheme: Scheme
    observed: tuple[Observed, ...]
    floating: frozenset[int]
    layers: tuple[str, ...]

    def apply(self, model: onnx.ModelProto) -> None:
        """Quantise the stage's model, at this or another layout, in place."""
        self.scheme.quantise(model, self.observed, self.floating)


@dataclass(frozen=True)
class Calibration:
    """Of a model; empty where nothing is quantised.

    Attributes:
        stages: those with linear layers, by name.
        traces: of the float32 stages, for their export to go on with.
    """

    stages: dict[str, StageCalibration] = field(default_factory=dict)
    traces: Traces = field(default_factory=dict)

    def change(self, stage: str) -> Callable[[onnx.ModelProto], None] | None:
        """What quantises a stage's model; None where it stays as it is."""
        return self.stages[stage].apply if stage in self.stages else None

    def floating(self, stage: str) -> tuple[str, ...]:
        """Matrices of a stage's layers whose activations are not quantised."""
        found = self.stages.get(stage)
        return () if found is None else tuple(found.layers[number] for number in sorted(found.floating))


def calibrate(model: Page4D, plan: Plan, frames: Frames, tolerance: float, progress: Callable[[str], None] = lambda what: None) -> Calibration:
    """Run the float32 chain and choose what each stage quantises, by measured error.

    Args:
        model: the reference.
        plan: at the layout to measure at, in int8 or fp8.
        frames: of that layout.
        tolerance: of the relative L2 of a stage's outputs; a smaller one quantises fewer layers.
        progress: told each stage's name.
    """
    exact = plan.in_precision(Precision.FLOAT32)
    values = start(model, exact, frames)
    found = Calibration()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        exporter = OnnxExporter(folder, model.config.head_dim, plan.attention, found.traces)
        for stage in stages_of(model, exact).values():
            progress(stage.name)
            path = exporter.write(stage)
            before = {spec.name: values[spec.name] for spec in stage.inputs}
            outputs, observed = _observe(path, stage.entry, before)
            if observed:
                found.stages[stage.name] = _choose(_SCHEMES[plan.precision], path, stage.entry, before, outputs, observed, tolerance)
            values |= outputs
            for kept in exact.gathered():
                if stage.name in kept.stages:
                    gather(kept, stage.name, values)
            for file in folder.iterdir():
                file.unlink()
    return found


def _choose(
    scheme: Scheme,
    path: pathlib.Path,
    entry: StageEntry,
    inputs: Values,
    outputs: Values,
    observed: list[tuple[Observed, Floats]],
    tolerance: float,
) -> StageCalibration:
    """Leave activations as they are where a layer's own error is large, then until the stage is within its tolerance.

    A layer's own error says little of what becomes of it: behind attention it may average out. So what each kind of layer adds to the
    stage's squared error is measured, and shared among its layers by the squares of their own; those come first that add most for
    their size.
    """
    graph = Graph(onnx.load(path).graph)
    exact = exact_weights(graph)
    errors = [
        scheme.error(rows, exact[linear.weight], seen, is_centred(graph, number))
        for number, (linear, (seen, rows)) in enumerate(zip(graph.linears, observed, strict=True))
    ]
    seen, names = tuple(one for one, _ in observed), tuple(linear.weight for linear in graph.linears)
    everything = frozenset(range(len(names)))
    choice = lambda floating: StageCalibration(scheme, seen, frozenset(floating), names)
    squared = lambda floating: _error(path, entry, choice(floating), inputs, outputs) ** 2
    floating = {number for number, found in enumerate(errors) if found > _PRONE}
    left = squared(floating)
    if left <= tolerance**2:
        return choice(floating)
    least = squared(everything)
    added = dict.fromkeys(everything - floating, 0.0)
    for kind in dict.fromkeys(linear.kind for linear in graph.linears):
        alike = [number for number in added if graph.linears[number].kind == kind]
        if alike:
            together = max(squared(everything - set(alike)) - least, 0.0)
            own = sum(errors[number] ** 2 for number in alike)
            added |= {number: together * errors[number] ** 2 / own for number in alike if own > 0}
    for number in sorted(added, key=lambda number: -added[number] / exact[names[number]].size):
        floating.add(number)
        left -= added[number]
        if left <= tolerance**2 and (left := squared(floating)) <= tolerance**2:
            break
    return choice(floating)


def _error(path: pathlib.Path, entry: StageEntry, choice: StageCalibration, inputs: Values, outputs: Values) -> float:
    proto = onnx.load(path)
    choice.apply(proto)
    target = path.with_name(f"quantised.{path.name}")
    onnx.save(proto, target, save_as_external_data=True, location=f"{target.name}.data", size_threshold=1024)
    del proto
    made, _ = _run(OrtEngine(target), entry, inputs, {})
    for file in (target, target.with_name(f"{target.name}.data")):
        file.unlink(missing_ok=True)  # external data is added to a file that is there
    return max(compare(made[name], outputs[name]).relative_l2 for name in outputs)


def _observe(path: pathlib.Path, entry: StageEntry, inputs: Values) -> tuple[Values, list[tuple[Observed, Floats]]]:
    """The float32 stage's outputs, and of every linear layer's input its statistics and some rows `[r,K]`."""
    shapes: dict[str, tuple[int, ...]] = {}
    layers: list[str] = []

    def extend(model: onnx.ModelProto) -> None:
        graph = Graph(model.graph)
        channels = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
        sizes = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in model.graph.value_info}
        for linear in graph.linears:
            layers.append(linear.x)
            if f"{linear.x}/mean" not in shapes:
                shapes.update(_watch(model.graph, linear.x, math.prod(sizes[linear.x][:-1]), channels[linear.weight], entry.calls))

    engine = OrtEngine(path, extend=extend)
    outputs, statistics = _run(engine, entry, inputs, shapes)
    observed = []
    for x in layers:
        mean, low, high, rows = (np.stack([call[f"{x}/{part}"] for call in statistics]).astype(np.float64) for part in _STATISTICS)
        observed.append((Observed(mean.mean(0), low.min(0), high.max(0)), rows.reshape(-1, rows.shape[-1])))
    return outputs, observed


def _watch(graph: onnx.GraphProto, x: str, rows: int, channels: int, calls: int) -> dict[str, tuple[int, ...]]:
    """Give out the statistics of a tensor `[...,K]` of so many rows; the names and shapes of what is given out."""
    some = np.unique(np.linspace(0, rows - 1, max(1, _ROWS // calls)).astype(np.int64))
    constants = {f"{x}/two": np.array([-1, channels]), f"{x}/first": np.array([0]), f"{x}/some": some}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    flat = f"{x}/flat"
    graph.node.append(helper.make_node("Reshape", [x, f"{x}/two"], [flat]))
    for operator, part in (("ReduceMean", "mean"), ("ReduceMin", "low"), ("ReduceMax", "high")):
        graph.node.append(helper.make_node(operator, [flat, f"{x}/first"], [f"{x}/{part}"], keepdims=0))
    graph.node.append(helper.make_node("Gather", [flat, f"{x}/some"], [f"{x}/rows"], axis=0))
    shapes: dict[str, tuple[int, ...]] = {f"{x}/{part}": (channels,) for part in ("mean", "low", "high")} | {f"{x}/rows": (len(some), channels)}
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    return shapes


def _run(engine: OrtEngine, entry: StageEntry, inputs: Values, more: dict[str, tuple[int, ...]]) -> tuple[Values, list[dict[str, NDArray[np.float32]]]]:
    """All calls of a stage: its outputs, and of each call what else is given out."""
    part = lambda array, shape, number: np.ascontiguousarray(array).reshape(-1)[number * math.prod(shape) : (number + 1) * math.prod(shape)].reshape(shape)
    outputs: Values = {spec.name: np.empty((entry.calls * spec.shape[0], *spec.shape[1:]), np.float32) for spec in entry.outputs}
    statistics = []
    for number in range(entry.calls):
        given = {spec.binding: part(inputs[spec.name], spec.shape, number) for spec in entry.inputs}
        made = {spec.binding: part(outputs[spec.name], spec.shape, number) for spec in entry.outputs}
        statistics.append({name: np.empty(shape, np.float32) for name, shape in more.items()})
        engine.bind(given, {**made, **statistics[-1]})()
    return outputs, statistics
