"""Statistics of what a stage's linear layers and attentions read, of the float32 stage as ONNX Runtime computes it."""

from __future__ import annotations

import itertools
import math
import pathlib
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from page4d.manifest import StageEntry
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.stage_graph import Floats, Graph, name_of, shape_of
from page4d_export.sample_clip import Values
from page4d_export.stage_runner import Arrays, run_engine

_ROWS = 256  # of a layer's input, in all, on which its error is measured
# channels for each token above which so few tokens say nothing of which channels go together: VGGT's camera head reads
# one token an image, and its moments would be gigabytes
_FEW = 8


@dataclass
class Seen:
    """Statistics of a linear layer's input, or of an attention's queries or keys, over all tokens.

    Attributes:
        tokens: how many.
        mean, low, high: by channel, float64 `[K]`.
        moment: mean of `(x - mean)^T (x - mean)`, `[K,K]`: which channels go together, and how far; float32, since
            there are gigabytes of it. None where the tokens are too few to say, and of queries and keys.
        rows: some rows of the input, `[r,K]`.
    """

    tokens: int
    mean: Floats
    low: Floats
    high: Floats
    moment: NDArray[np.float32] | None
    rows: Floats

    @property
    def observed(self) -> Observed:
        """The part that quantization reads."""
        return Observed(self.mean, self.low, self.high)

    def add(self, other: Seen) -> None:
        """Join the statistics of another call."""
        whole = self.tokens + other.tokens
        share = other.tokens / whole
        apart = other.mean - self.mean
        if self.moment is not None and other.moment is not None:
            self.moment += share * (other.moment - self.moment)
            self.moment += (share * (1 - share) * np.outer(apart, apart)).astype(np.float32)
        self.mean = self.mean + share * apart
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.rows = np.concatenate((self.rows, other.rows))
        self.tokens = whole


@dataclass(frozen=True)
class StatsOutputs:
    """The outputs that are added to a stage's graph for one tensor `[...,K]`.

    Attributes:
        x: the tensor's name, which starts the outputs' names.
        tokens: of a call.
        channels: K.
        rows: indices of the tokens that are given out as they are.
        has_moment: whether the moment is given out.
    """

    x: str
    tokens: int
    channels: int
    rows: tuple[int, ...]
    has_moment: bool

    @classmethod
    def of(cls, value: ir.Value, calls: int, moment: bool = True) -> StatsOutputs:
        """The outputs for a tensor.

        Args:
            value: `[...,K]`.
            calls: of its stage.
            moment: whether the moment is given out, where the tokens are enough to say.
        """
        *leading, channels = shape_of(value)
        tokens = math.prod(leading)
        rows = np.unique(np.linspace(0, tokens - 1, max(1, _ROWS // calls)).astype(np.int64))
        return cls(
            x=name_of(value),
            tokens=tokens,
            channels=channels,
            rows=tuple(rows.tolist()),
            has_moment=moment and _FEW * tokens * calls >= channels,
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs, by their names."""
        K = self.channels
        shapes: dict[str, tuple[int, ...]] = {"mean": (K,), "low": (K,), "high": (K,), "rows": (len(self.rows), K)}
        if self.has_moment:
            shapes["moment"] = K, K
        return {f"{self.x}/{part}": shape for part, shape in shapes.items()}

    def extend(self, graph: onnx.GraphProto) -> None:
        """Add the outputs, and the nodes that compute them."""
        x = self.x
        flat, centered, transposed, sums = (f"{x}/{part}" for part in ("flat", "centered", "transposed", "sums"))
        constants = {
            f"{x}/matrix": np.array([-1, self.channels]),
            f"{x}/axis": np.array([0]),
            f"{x}/chosen": np.array(self.rows),
            f"{x}/count": np.float32(self.tokens),
        }
        graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
        graph.node.append(helper.make_node("Reshape", [x, f"{x}/matrix"], [flat]))
        for operator, part in (("ReduceMean", "mean"), ("ReduceMin", "low"), ("ReduceMax", "high")):
            graph.node.append(helper.make_node(operator, [flat, f"{x}/axis"], [f"{x}/{part}"], keepdims=0))
        graph.node.append(helper.make_node("Gather", [flat, f"{x}/chosen"], [f"{x}/rows"], axis=0))
        if self.has_moment:
            graph.node.extend(
                [
                    helper.make_node("Sub", [flat, f"{x}/mean"], [centered]),
                    helper.make_node("Transpose", [centered], [transposed], perm=[1, 0]),
                    helper.make_node("MatMul", [transposed, centered], [sums]),
                    helper.make_node("Div", [sums, f"{x}/count"], [f"{x}/moment"]),
                ]
            )
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in self.shapes.items()
        )

    def seen(self, call: Arrays) -> Seen:
        """The statistics of one call."""
        parts = ("mean", "low", "high", "rows")
        mean, low, high, rows = (call[f"{self.x}/{part}"].astype(np.float64) for part in parts)
        moment = call[f"{self.x}/moment"].copy() if self.has_moment else None
        return Seen(tokens=self.tokens, mean=mean, low=low, high=high, moment=moment, rows=rows)


@dataclass(frozen=True)
class StageStats:
    """Statistics of a stage.

    Attributes:
        linears: of each linear layer's input, in the order they run.
        attentions: of each attention's queries and keys, in the order they run; empty where they were not asked for.
    """

    linears: list[Seen]
    attentions: list[tuple[Seen, Seen]]


def observe(
    path: pathlib.Path, entry: StageEntry, inputs: Values, attention: bool = False
) -> tuple[Values, StageStats]:
    """A float32 stage's outputs, and statistics of what its layers read.

    Args:
        path: of its ONNX file.
        entry: the stage.
        inputs: by name, of all calls.
        attention: whether queries and keys are looked at.
    """
    graph = Graph(ir.load(path))
    factors = [attended.queries_and_keys for attended in graph.attentions if attention]
    stats = {linear.x: StatsOutputs.of(linear.input, entry.calls) for linear in graph.linears}
    for value in itertools.chain(*factors):
        stats.setdefault(name_of(value), StatsOutputs.of(value, entry.calls, moment=False))
    seen: dict[str, Seen] = {}

    def extend(model: onnx.ModelProto) -> None:
        for outputs in stats.values():
            outputs.extend(model.graph)

    def take(call: Arrays) -> None:
        for x, outputs in stats.items():
            if x in seen:
                seen[x].add(outputs.seen(call))
            else:
                seen[x] = outputs.seen(call)

    shapes = {name: shape for outputs in stats.values() for name, shape in outputs.shapes.items()}
    results = run_engine(OrtEngine(path, extend=extend), entry, inputs, shapes, take)
    attentions = [(seen[name_of(queries)], seen[name_of(keys)]) for queries, keys in factors]
    return results, StageStats([seen[linear.x] for linear in graph.linears], attentions)
