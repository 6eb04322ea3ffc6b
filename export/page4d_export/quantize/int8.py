"""Int8: the linear layers of a stage as products of 8-bit integers, activations quantized as they come, for CPUs.

`static_int8` is the same with fixed ranges of activations.

Weights lie as uint8 around 128, with a scale per output. Unsigned, because CPUs without VNNI multiply unsigned by
signed bytes with a saturating 16-bit sum, whose results are silently wrong; ONNX Runtime has exact kernels for two
unsigned ones on all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from page4d_export.quantize.centering import Observed, center, product_error
from page4d_export.quantize.fixed_range import FixedRange
from page4d_export.quantize.gptq import compensated
from page4d_export.quantize.stage_graph import Floats, Graph, Linear, node

_ZERO = 128
_LARGEST = 127  # so that the range is the same on both sides of _ZERO


def quantize(
    model: ir.Model,
    observed: Sequence[Observed],
    floating: Collection[int] = (),
    weights: Mapping[str, Weight] | None = None,
    room: float | None = None,
) -> None:
    """As `Scheme.quantize`, for a stage in float32; the weights of layers in `floating` are quantized all the same.

    Args:
        room: times what was measured that the ranges of activations are; None: their ranges are measured in every call.
    """
    graph = Graph(model)
    stored = weights or {name: weight(exact) for name, exact in graph.weights.items()}
    layers = graph.linears
    shifted = center(graph, observed, lambda number: layers[number].exact - stored[layers[number].weight].values)
    matrices = {name: _constants(graph, name, matrix) for name, matrix in stored.items()}
    zero = graph.constant("int8/zero", np.uint8(_ZERO).reshape(()))
    dequantized: dict[str, ir.Value] = {}
    quantized: dict[str, Sequence[ir.Value]] = {}
    for number, linear in enumerate(layers):
        name = linear.weight
        matrix = matrices[name]
        nodes = []
        if number in floating:
            if name not in dequantized:
                inputs = [matrix.numbers, matrix.scale, matrix.zeros]
                nodes.append(node("DequantizeLinear", inputs, f"{name}/float", axis=1))
                dequantized[name] = nodes[-1].outputs[0]
            nodes.append(node("MatMul", [linear.input, dequantized[name]], f"{linear.out}/product"))
        else:
            if linear.x not in quantized:
                fixed = None if room is None else _fixed_range(observed[number], linear.x in shifted, room)
                numbers, x_scale, x_zero = _quantized(graph, linear, fixed)
                nodes.append(numbers)
                quantized[linear.x] = numbers.outputs[0], x_scale, x_zero
            nodes += _product(linear.out, quantized[linear.x], matrix, zero)
        graph.replace(linear.product, nodes)
    RemoveUnusedNodesPass()(model)


def error(x: Floats, exact: Floats, seen: Observed, shifted: bool, room: float = 1.0) -> float:
    """As `Scheme.error`."""
    return product_error(x, exact, seen.taken_out(shifted), _fixed_range(seen, shifted, room).rounded)


@dataclass(frozen=True)
class Weight:
    """A matrix `[K,N]` as `(numbers - 128) * scale`: uint8 `[K,N]`, float32 `[N]`."""

    numbers: NDArray[np.uint8]
    scale: NDArray[np.float32]

    @property
    def values(self) -> Floats:
        """The matrix that is stored."""
        return (self.numbers.astype(np.float64) - _ZERO) * self.scale


def weight(exact: Floats, moment: NDArray[np.floating[Any]] | None = None) -> Weight:
    """As `Scheme.weight`, with a scale per output: 1 for a column of zeros."""
    largest = np.abs(exact).max(0)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)

    def steps(rows: Floats) -> Floats:
        return np.clip(np.round(rows / scale), -_LARGEST, _LARGEST)

    numbers = steps(exact if moment is None else compensated(exact, moment, lambda rows: steps(rows) * scale))
    return Weight((numbers + _ZERO).astype(np.uint8), scale)


class _Matrix(NamedTuple):
    """A stored matrix as initializers."""

    numbers: ir.Value
    scale: ir.Value
    zeros: ir.Value


def _constants(graph: Graph, name: str, matrix: Weight) -> _Matrix:
    return _Matrix(
        numbers=graph.constant(f"{name}/int8", matrix.numbers),
        scale=graph.constant(f"{name}/scale", matrix.scale),
        zeros=graph.constant(f"{name}/zeros", np.full(matrix.scale.shape, _ZERO, np.uint8)),
    )


def _fixed_range(seen: Observed, shifted: bool, room: float) -> FixedRange:
    return FixedRange.of(*seen.range(shifted), room)


def _quantized(graph: Graph, linear: Linear, fixed: FixedRange | None) -> tuple[ir.Node, ir.Value, ir.Value]:
    """The node whose first output is a layer's input as bytes, and what these are: scale and zero.

    Args:
        fixed: their range; None: it is measured in every call.
    """
    numbers, scale, zero = (f"{linear.x}/{part}" for part in ("int8", "scale", "zero"))
    if fixed is None:
        dynamic = node("DynamicQuantizeLinear", [linear.input], numbers, scale, zero)
        return dynamic, dynamic.outputs[1], dynamic.outputs[2]
    constants = [
        graph.constant(scale, np.float32(fixed.scale).reshape(())),
        graph.constant(zero, np.uint8(fixed.zero).reshape(())),
    ]
    return node("QuantizeLinear", [linear.input, *constants], numbers), constants[0], constants[1]


def _product(out: str, x: Sequence[ir.Value], matrix: _Matrix, zero: ir.Value) -> list[ir.Node]:
    """Standard operators in the pattern that ONNX Runtime fuses, the bias that follows included."""
    numbers, x_scale, x_zero = x
    sums = node("MatMulInteger", [numbers, matrix.numbers, x_zero, zero], f"{out}/sums")
    wide = node("Cast", sums.outputs, f"{out}/wide", to=int(ir.DataType.FLOAT))
    scale = node("Mul", [x_scale, matrix.scale], f"{out}/scale")
    return [sums, wide, scale, node("Mul", [wide.outputs[0], scale.outputs[0]], f"{out}/product")]
