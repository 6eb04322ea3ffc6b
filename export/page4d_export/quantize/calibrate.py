"""Calibration for int8 and fp8: activations are measured on frames, and the layers to quantize chosen by error."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from page4d.accuracy import compare
from page4d.config import Head, ModelConfig
from page4d.manifest import StageEntry
from page4d.model import Page4D
from page4d.precision import Precision
from page4d.system.progress import SILENT, Progress
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.quantize import fp8, int8, static_int8
from page4d_export.quantize.activation_stats import StageStats, observe
from page4d_export.quantize.centering import Observed, is_centered
from page4d_export.quantize.stage_graph import Attention, Floats, Graph, Linear
from page4d_export.quantize.static_int8 import QueriesAndKeys
from page4d_export.sample_clip import SampleClip, Values
from page4d_export.stage import stages_of
from page4d_export.stage_runner import StageChain, run_engine
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_export.tracing.trace_cache import TraceCache

_PRONE = 0.05  # error of a layer's product above which its activations are not quantized


class Scheme(Protocol):
    """A way to quantize: the modules `int8`, `static_int8` and `fp8`."""

    def weight(self, exact: Floats, moment: NDArray[np.floating[Any]] | None = None) -> Any:
        """A matrix as it will be stored.

        Args:
            exact: `[K,N]`.
            moment: of its inputs, as `compensated` takes it; None rounds to the nearest.
        """

    def quantize(
        self,
        model: ir.Model,
        observed: Sequence[Observed],
        floating: Collection[int] = (),
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """Quantize a stage's linear layers, in place.

        Args:
            model: with its weights.
            observed: of every linear layer's input, in the order of `Graph.linears`.
            floating: layers by number whose activations are not quantized.
            weights: by name, as `weight` makes them; None rounds to the nearest.
        """

    def error(self, x: Floats, exact: Floats, seen: Observed, shifted: bool) -> float:
        """What quantizing a layer's activations costs: the relative L2 error of its product.

        Args:
            x: some rows of its input, `[r,K]`.
            exact: its matrix, `[K,N]`.
            seen: of its input.
            shifted: whether the mean is taken out of its input.
        """


_SCHEMES: dict[Precision, Scheme] = {Precision.INT8: int8, Precision.FP8: fp8}


@dataclass(frozen=True)
class StageCalibration:
    """How one stage is quantized.

    Attributes:
        scheme: how it is quantized.
        observed: of every linear layer's input, in the order they run.
        attentions: with static ranges: of every attention's queries and keys, in the order they run.
        floating: by number, linear layers whose activations are not quantized; after all of these, attentions whose
            queries and keys are not.
        names: the matrices of the layers and the outputs of the attentions, in the same order.
        weights: their matrices as they will be stored, by name.
    """

    scheme: Scheme
    observed: tuple[Observed, ...]
    attentions: tuple[QueriesAndKeys, ...]
    floating: frozenset[int]
    names: tuple[str, ...]
    weights: Mapping[str, Any]

    def apply(self, model: ir.Model) -> None:
        """Quantize the stage's model, at this or another layout, in place."""
        layers = len(self.observed)
        self.scheme.quantize(model, self.observed, self.floating, self.weights)
        if self.attentions:
            static_int8.round_queries_and_keys(model, self.attentions, {number - layers for number in self.floating})


@dataclass(frozen=True)
class Calibration:
    """How a model is quantized; empty where nothing is.

    Attributes:
        stages: those with linear layers, by name.
        traces: of the float32 stages, for their export to go on with.
    """

    stages: dict[str, StageCalibration] = field(default_factory=dict)
    traces: TraceCache = field(default_factory=TraceCache.of_environment)

    def change(self, stage: str) -> Callable[[ir.Model], None] | None:
        """The function that quantizes a stage's model; None where it stays as it is."""
        return self.stages[stage].apply if stage in self.stages else None

    def floating(self, stage: str) -> tuple[str, ...]:
        """Matrices of a stage's layers whose activations are not quantized; attentions, by their outputs."""
        calibration = self.stages.get(stage)
        if calibration is None:
            return ()
        return tuple(calibration.names[number] for number in sorted(calibration.floating))


def calibrate(
    model: Page4D,
    plan: ExportPlan,
    clip: SampleClip,
    tolerance: float,
    progress: Progress = SILENT,
    place: pathlib.Path | None = None,
) -> Calibration:
    """Run the float32 chain and choose what each stage quantizes, by measured error.

    Args:
        model: the reference.
        plan: at the layout to measure at, in int8 or fp8.
        clip: of that layout.
        tolerance: of the relative L2 of a stage's outputs; a smaller one quantizes fewer layers.
        progress: told of each stage.
        place: where float32 graphs are written for as long as they are needed; None: the system's folder for such.
    """
    exact = plan.in_precision(Precision.FLOAT32)
    chain = StageChain(model, exact, clip)
    calibration = Calibration()
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        folder = pathlib.Path(temporary)
        exporter = OnnxExporter(folder, model.config.head_dim, plan.attention, calibration.traces)
        for stage in stages_of(model, exact).values():
            progress.step(f"calibrating {stage.name}")
            is_fixed = _stays_as_it_is(model.config, stage.entry, plan.precision)
            if is_fixed and stage.entry.kind in list(Head):
                continue  # no stage reads what it gives
            path = exporter.write(stage)
            inputs = chain.inputs(stage.entry)
            outputs, seen = observe(path, stage.entry, inputs, plan.static_ranges)
            if seen.linears and not is_fixed:
                scheme = static_int8 if plan.static_ranges else _SCHEMES[plan.precision]
                calibration.stages[stage.name] = _choose(scheme, path, stage.entry, inputs, outputs, seen, tolerance)
            chain.store(stage.entry, outputs)
            for file in folder.iterdir():
                file.unlink()
    return calibration


def _choose(
    scheme: Scheme,
    path: pathlib.Path,
    entry: StageEntry,
    inputs: Values,
    outputs: Values,
    seen: StageStats,
    tolerance: float,
) -> StageCalibration:
    """Round the weights, and choose the layers whose activations are kept in floating point.

    An attention whose queries and keys were looked at is such a layer.

    A layer is kept where its own error is above `_PRONE`. Then, until the stage's error e is within the tolerance t,
    the layer that gains most for its size is kept: `gain / (K N)`, where the gain is what its activations add to e^2.
    Gains are taken to add up, e^2 = sum of the gains of all layers that are not kept + what the weights cost, so that
    the stage is measured again only where that sum says `e^2 <= t^2`.
    """
    graph = Graph(ir.load(path))
    exact = graph.weights
    attentions = graph.attentions if seen.attentions else ()
    layers: list[Linear | Attention] = [*graph.linears, *attentions]
    errors = [
        scheme.error(stats.rows, exact[linear.weight], stats.observed, is_centered(graph, number))
        for number, (linear, stats) in enumerate(zip(graph.linears, seen.linears, strict=True))
    ]
    errors += [static_int8.attention_error(queries, keys) for queries, keys in seen.attentions]
    moments: dict[str, NDArray[np.float32] | None] = {}
    for linear, stats in zip(graph.linears, seen.linears, strict=True):  # a block that runs twice sees two inputs
        earlier = moments.get(linear.weight)
        moments[linear.weight] = stats.moment if earlier is None or stats.moment is None else earlier + stats.moment
    calibration = StageCalibration(
        scheme=scheme,
        observed=tuple(stats.observed for stats in seen.linears),
        attentions=tuple((queries.observed, keys.observed) for queries, keys in seen.attentions),
        floating=frozenset(),
        names=(*(linear.weight for linear in graph.linears), *(attention.out for attention in attentions)),
        weights={name: scheme.weight(exact[name], moment) for name, moment in moments.items()},
    )

    def keeping(kept_float: Collection[int]) -> StageCalibration:
        return dataclasses.replace(calibration, floating=frozenset(kept_float))

    def measured(kept_float: Collection[int]) -> float:
        return _error(path, entry, keeping(kept_float), inputs, outputs) ** 2

    kept_float = {number for number, error in enumerate(errors) if error > _PRONE}
    error_sq, allowed_sq = measured(kept_float), tolerance**2
    if error_sq <= allowed_sq:
        return keeping(kept_float)
    gains = _gains(layers, errors, set(range(len(layers))) - kept_float, measured)
    gain_by_size = {number: gain / layers[number].size for number, gain in gains.items()}
    for number in sorted(gains, key=lambda number: -gain_by_size[number]):
        kept_float.add(number)
        error_sq -= gains[number]
        if error_sq <= allowed_sq:
            error_sq = measured(kept_float)
            if error_sq <= allowed_sq:
                break
    return keeping(kept_float)


def _stays_as_it_is(config: ModelConfig, entry: StageEntry, precision: Precision) -> bool:
    """Whether a stage is not quantized: Pi3X's metric head, whose one query gains nothing; and in fp8 DPT heads, and
    what is float32 in 16 bits."""
    if entry.kind == "metric":
        return True
    return precision is Precision.FP8 and (
        entry.kind in ("camera_encoder", "depth") or (config.built_on_vggt and entry.kind in list(Head))
    )


def _gains(
    layers: Sequence[Linear | Attention],
    errors: Sequence[float],
    among: Collection[int],
    measured: Callable[[Collection[int]], float],
) -> dict[int, float]:
    """What the activations of each layer of `among` add to a stage's squared error.

    `measured` gives that error for the layers that are kept in floating point. A layer's own error says little of what
    becomes of it: behind attention it may average out. So the layers of a kind are measured together, and share what
    they add by the squares of their own errors.
    """
    everything = frozenset(range(len(errors)))
    least = measured(everything)
    gains = dict.fromkeys(among, 0.0)
    for kind in dict.fromkeys(layers[number].kind for number in among):
        alike = [number for number in among if layers[number].kind == kind]
        together = max(measured(everything - set(alike)) - least, 0.0)
        own = sum(errors[number] ** 2 for number in alike)
        if own > 0:
            gains |= {number: together * errors[number] ** 2 / own for number in alike}
    return gains


def _error(path: pathlib.Path, entry: StageEntry, choice: StageCalibration, inputs: Values, outputs: Values) -> float:
    """The relative L2 error of a stage that is quantized so."""
    model = ir.load(path)
    choice.apply(model)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
        target = pathlib.Path(temporary) / path.name
        ir.save(model, target, external_data=f"{path.name}.data", size_threshold_bytes=1024)
        results = run_engine(OrtEngine(target), entry, inputs)
    return max(compare(results[name], outputs[name], name).relative_l2 for name in outputs)
