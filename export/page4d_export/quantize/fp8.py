"""FP8: the linear layers of a stage as products of E4M3 numbers, for GPUs from SM89 on.

Weights and activations have one scale a tensor each. Activations are scaled by what was measured on frames, with room
for what other frames may bring: a floating-point number loses nothing by being far from the largest one. Scales are
powers of two, so they add no error of their own and are exact in 16 bits. The graph says so in the standard's terms,
QuantizeLinear and DequantizeLinear before a product, of which TensorRT makes one FP8 kernel, and which ONNX Runtime
computes as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from page4d_export.quantize.centering import Observed, center, product_error
from page4d_export.quantize.gptq import compensated
from page4d_export.quantize.stage_graph import Floats, Graph, array_of, node

_LARGEST = float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)  # 448
_ROOM = 2.0  # times what was measured that an activation may be before it is cut off
_EXPONENTS = (-14, 15)  # of float16's normal numbers


def quantize(
    model: ir.Model,
    observed: Sequence[Observed],
    floating: Collection[int] = (),
    weights: Mapping[str, Weight] | None = None,
) -> None:
    """As `Scheme.quantize`, for a stage in float32 or 16 bits; layers in `floating` stay as they are."""
    graph = Graph(model)
    layers = graph.linears
    stored = weights or {name: weight(exact) for name, exact in graph.weights.items()}

    def lost(number: int) -> Floats:
        exact = layers[number].exact
        return np.zeros_like(exact) if number in floating else exact - stored[layers[number].weight].values

    shifted = center(graph, observed, lost)
    zero = graph.constant("fp8/zero", np.zeros((), ml_dtypes.float8_e4m3fn))
    rounded_inputs: dict[str, ir.Value] = {}
    rounded_weights: dict[str, ir.Value] = {}
    for number, (linear, seen) in enumerate(zip(layers, observed, strict=True)):
        if number in floating:
            continue
        x, name, matrix = linear.x, linear.weight, stored[linear.weight]
        dtype = array_of(linear.matrix).dtype
        nodes = []
        if x not in rounded_inputs:
            scale = graph.constant(f"{x}/scale", np.array(_activation_scale(seen, x in shifted), dtype))
            eight = node("QuantizeLinear", [linear.input, scale, zero], f"{x}/fp8")
            nodes += [eight, node("DequantizeLinear", [eight.outputs[0], scale, zero], f"{x}/rounded")]
            rounded_inputs[x] = nodes[-1].outputs[0]
        if name not in rounded_weights:
            numbers = graph.constant(f"{name}/fp8", matrix.numbers)
            scale = graph.constant(f"{name}/scale", np.array(matrix.scale, dtype))
            nodes.append(node("DequantizeLinear", [numbers, scale, zero], f"{name}/rounded"))
            rounded_weights[name] = nodes[-1].outputs[0]
        inputs = [rounded_inputs[x], rounded_weights[name]]
        nodes.append(node("MatMul", inputs, f"{linear.out}/product", name=f"{linear.out}/fp8"))
        graph.replace(linear.product, nodes)
    RemoveUnusedNodesPass()(model)


def error(x: Floats, exact: Floats, seen: Observed, shifted: bool) -> float:
    """As `Scheme.error`."""
    scale = _activation_scale(seen, shifted)
    return product_error(x, exact, seen.taken_out(shifted), partial(rounded, scale=scale))


@dataclass(frozen=True)
class Weight:
    """A matrix `[K,N]` as `numbers * scale`: E4M3 `[K,N]`, a power of two."""

    numbers: NDArray[np.generic]
    scale: float

    @property
    def values(self) -> Floats:
        """The matrix that is stored."""
        return self.numbers.astype(np.float64) * self.scale


def weight(exact: Floats, moment: NDArray[np.floating[Any]] | None = None) -> Weight:
    """As `Scheme.weight`, with one scale."""
    scale = scale_of(float(np.abs(exact).max(initial=0.0)))
    nearest = partial(rounded, scale=scale)
    return Weight(_numbers(exact if moment is None else compensated(exact, moment, nearest), scale), scale)


def scale_of(largest: float, room: float = 1.0) -> float:
    """The least power of two by which numbers up to `largest`, times `room`, are within E4M3's range; 1 for none."""
    if largest == 0:
        return 1.0
    low, high = _EXPONENTS
    return 2.0 ** min(max(math.ceil(math.log2(largest * room / _LARGEST)), low), high)


def rounded(exact: Floats, scale: float) -> Floats:
    """Numbers rounded to the nearest E4M3 number times the scale, cut off at the range's ends."""
    return _numbers(exact, scale).astype(np.float64) * scale


def _numbers(exact: Floats, scale: float) -> NDArray[np.generic]:
    return np.clip(exact / scale, -_LARGEST, _LARGEST).astype(ml_dtypes.float8_e4m3fn)


def _activation_scale(seen: Observed, shifted: bool) -> float:
    return scale_of(max(map(abs, seen.range(shifted))), _ROOM)
