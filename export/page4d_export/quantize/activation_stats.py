"""What the linear layers of a stage see of frames: statistics of their inputs, out of the float32 stage as ONNX Runtime
computes it."""

from __future__ import annotations

import math
import pathlib
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from page4d.manifest import StageEntry
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.quantize.centering import Floats, Observed
from page4d_export.quantize.linear_layers import Graph
from page4d_export.sample_clip import Values
from page4d_export.stage_runner import Arrays, run_engine

_ROWS = 256  # of a layer's input, in all, on which its error is measured


@dataclass
class Seen:
    """Of a linear layer's input, over all tokens.

    Attributes:
        tokens: how many.
        mean, low, high: by channel, float64 `[K]`.
        moment: mean of `(x - mean)^T (x - mean)`, float32 `[K,K]`, since there are gigabytes of it: which channels go
            together, and how far.
        rows: some of it, `[r,K]`.
    """

    tokens: int
    mean: Floats
    low: Floats
    high: Floats
    moment: NDArray[np.float32]
    rows: Floats

    @property
    def observed(self) -> Observed:
        """What a scheme asks of it."""
        return Observed(self.mean, self.low, self.high)

    def add(self, other: Seen) -> None:
        """What another call saw."""
        whole = self.tokens + other.tokens
        share = other.tokens / whole
        apart = other.mean - self.mean
        self.moment += share * (other.moment - self.moment)
        self.moment += (share * (1 - share) * np.outer(apart, apart)).astype(np.float32)
        self.mean = self.mean + share * apart
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        self.rows = np.concatenate((self.rows, other.rows))
        self.tokens = whole


@dataclass
class _Watch:
    """What a stage's graph gives out besides its outputs."""

    calls: int
    layers: list[str] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def extend(self, model: onnx.ModelProto) -> None:
        """Give out the statistics of every linear layer's input `[...,K]`."""
        graph = Graph(model.graph)
        channels = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) == 2}
        sizes = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in model.graph.value_info}
        for linear in graph.linears:
            self.layers.append(linear.x)
            if linear.x not in self.tokens:
                self.tokens[linear.x] = math.prod(sizes[linear.x][:-1])
                self._give_out(model.graph, linear.x, channels[linear.weight])

    def _give_out(self, graph: onnx.GraphProto, x: str, channels: int) -> None:
        rows = self.tokens[x]
        some = np.unique(np.linspace(0, rows - 1, max(1, _ROWS // self.calls)).astype(np.int64))
        constants = {
            f"{x}/two": np.array([-1, channels]),
            f"{x}/first": np.array([0]),
            f"{x}/some": some,
            f"{x}/count": np.float32(rows),
        }
        graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items())
        flat, apart, turned, sums = (f"{x}/{part}" for part in ("flat", "apart", "turned", "sums"))
        graph.node.append(helper.make_node("Reshape", [x, f"{x}/two"], [flat]))
        for operator, part in (("ReduceMean", "mean"), ("ReduceMin", "low"), ("ReduceMax", "high")):
            graph.node.append(helper.make_node(operator, [flat, f"{x}/first"], [f"{x}/{part}"], keepdims=0))
        graph.node.extend(
            [
                helper.make_node("Gather", [flat, f"{x}/some"], [f"{x}/rows"], axis=0),
                helper.make_node("Sub", [flat, f"{x}/mean"], [apart]),
                helper.make_node("Transpose", [apart], [turned], perm=[1, 0]),
                helper.make_node("MatMul", [turned, apart], [sums]),
                helper.make_node("Div", [sums, f"{x}/count"], [f"{x}/moment"]),
            ]
        )
        shapes: dict[str, tuple[int, ...]] = {f"{x}/{part}": (channels,) for part in ("mean", "low", "high")}
        shapes |= {f"{x}/rows": (len(some), channels), f"{x}/moment": (channels, channels)}
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
        )
        self.shapes |= shapes

    def seen(self, call: Arrays) -> dict[str, Seen]:
        """Of one call, by the input's name."""
        wide = lambda x, part: call[f"{x}/{part}"].astype(np.float64)
        return {
            x: Seen(
                tokens, wide(x, "mean"), wide(x, "low"), wide(x, "high"), call[f"{x}/moment"].copy(), wide(x, "rows")
            )
            for x, tokens in self.tokens.items()
        }


def observe(path: pathlib.Path, entry: StageEntry, inputs: Values) -> tuple[Values, list[Seen]]:
    """A float32 stage's outputs, and what each of its linear layers saw, in their order; those with one input share
    what it is."""
    watch, seen = _Watch(entry.calls), dict[str, Seen]()

    def take(call: Arrays) -> None:
        for x, found in watch.seen(call).items():
            if x in seen:
                seen[x].add(found)
            else:
                seen[x] = found

    outputs = run_engine(OrtEngine(path, extend=watch.extend), entry, inputs, watch.shapes, take)
    return outputs, [seen[x] for x in watch.layers]
