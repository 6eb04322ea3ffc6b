"""FP8: the linear layers of a stage as products of E4M3 numbers, for GPUs from SM89 on.

Weights and activations have one scale a tensor each. Activations are scaled by what was measured on frames, with room
for what other frames may bring: a floating-point number loses nothing by being far from the largest one. Scales are
powers of two, so
    they add no
error of their own and are exact in 16 bits. The graph says so in the standard's terms, QuantizeLinear and
DequantizeLinear before a product, of which TensorRT makes one FP8 kernel, and which ONNX Runtime computes as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from page4d_export.quantize.centering import Floats, Observed, centre, exact_weights, product_error
from page4d_export.quantize.gptq import compensated
from page4d_export.quantize.linear_layers import Graph, Linear

_LARGEST = float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)  # 448
_ROOM = 2.0  # times what was measured that an activation may be before it is cut off
_EXPONENTS = (-14, 15)  # of float16's normal numbers


def quantise(
    model: onnx.ModelProto,
    observed: Sequence[Observed],
    floating: Collection[int] = (),
    weights: Mapping[str, Weight] | None = None,
) -> None:
    """Quantise the linear layers of a stage in float32 or 16 bits, in place.

    Args:
        model: with its weights.
        observed: of every linear layer's input, in the order of `Graph.linears`.
        floating: layers by number that stay as they are.
        weights: by name, as `weight` makes them; None rounds to the nearest.
    """
    graph = Graph(model.graph)
    exact = exact_weights(graph)
    stored = weights or {name: weight(array) for name, array in exact.items()}

    def lost(number: int) -> Floats:
        name = graph.linears[number].weight
        return np.zeros_like(exact[name]) if number in floating else exact[name] - stored[name].values

    dtypes = {
        tensor.name: numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer if tensor.name in exact
    }
    centred = centre(graph, observed, lost)
    added = dict(centred.biases)
    added["fp8/zero"] = np.zeros((), ml_dtypes.float8_e4m3fn)
    for name, made_of in stored.items():
        added |= {f"{name}/fp8": made_of.numbers, f"{name}/scale": np.array(made_of.scale, dtypes[name])}
    for linear, seen in zip(graph.linears, observed, strict=True):
        scale = _activation_scale(seen, linear.x in centred.shifted)
        added[f"{linear.x}/scale"] = np.array(scale, dtypes[linear.weight])
    quantised: set[str] = set()  # inputs
    widened: set[str] = set()  # weights

    def made(number: int, linear: Linear) -> list[NodeProto]:
        if number in floating:
            return [linear.product]
        x, matrix = linear.x, linear.weight
        nodes = []
        if x not in quantised:
            quantised.add(x)
            nodes.append(helper.make_node("QuantizeLinear", [x, f"{x}/scale", "fp8/zero"], [f"{x}/fp8"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{x}/fp8", f"{x}/scale", "fp8/zero"], [f"{x}/rounded"]))
        if matrix not in widened:
            widened.add(matrix)
            nodes.append(
                helper.make_node(
                    "DequantizeLinear", [f"{matrix}/fp8", f"{matrix}/scale", "fp8/zero"], [f"{matrix}/rounded"]
                )
            )
        out = linear.product.output[0]
        return [*nodes, helper.make_node("MatMul", [f"{x}/rounded", f"{matrix}/rounded"], [out], name=f"{out}/fp8")]

    graph.replace_products(made, added)


def error(x: Floats, exact: Floats, seen: Observed, shifted: bool) -> float:
    """What quantising a layer's activations costs: the relative L2 error of its product over some rows x `[r,K]` with
    `[K,N]`."""
    scale = _activation_scale(seen, shifted)
    return product_error(x, exact, seen.taken_out(shifted), lambda centred: rounded(centred, scale))


@dataclass(frozen=True)
class Weight:
    """A matrix `[K,N]` as `numbers * scale`: E4M3 `[K,N]`, a power of two."""

    numbers: NDArray[np.generic]
    scale: float

    @property
    def values(self) -> Floats:
        """What the numbers stand for."""
        return self.numbers.astype(np.float64) * self.scale


def weight(exact: Floats, moment: NDArray[np.floating[Any]] | None = None) -> Weight:
    """A matrix `[K,N]` with one scale.

    Args:
        exact: `[K,N]`.
        moment: of its inputs, as `compensated` takes it; None rounds to the nearest.
    """
    scale = scale_of(float(np.abs(exact).max(initial=0.0)))
    return Weight(
        _numbers(exact if moment is None else compensated(exact, moment, lambda rows: rounded(rows, scale)), scale),
        scale,
    )


def scale_of(largest: float, room: float = 1.0) -> float:
    """The least power of two by which numbers up to `largest`, times `room`, are within E4M3's range; 1 for none."""
    if largest == 0:
        return 1.0
    low, high = _EXPONENTS
    return 2.0 ** min(max(math.ceil(math.log2(largest * room / _LARGEST)), low), high)


def rounded(exact: Floats, scale: float) -> Floats:
    """What is left of numbers: to the nearest, cut off at the range's ends."""
    return _numbers(exact, scale).astype(np.float64) * scale


def _numbers(exact: Floats, scale: float) -> NDArray[np.generic]:
    return np.clip(exact / scale, -_LARGEST, _LARGEST).astype(ml_dtypes.float8_e4m3fn)


def _activation_scale(seen: Observed, shifted: bool) -> float:
    return scale_of(max(map(abs, seen.range(shifted))), _ROOM)
