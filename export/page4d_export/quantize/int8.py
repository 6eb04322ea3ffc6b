"""Int8: the linear layers of a stage as products of 8-bit integers, activations quantised as they come, for processors.

Weights lie as uint8 around 128, with a scale per output. Unsigned, because processors without VNNI multiply unsigned by
signed bytes with a saturating 16-bit sum, whose results are silently wrong; ONNX Runtime has exact kernels for two
unsigned ones on all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from page4d_export.quantize.centering import Floats, Observed, centre, exact_weights, product_error
from page4d_export.quantize.gptq import compensated
from page4d_export.quantize.linear_layers import Graph, Linear

_ZERO = 128
_LARGEST = 127  # so that the range is the same on both sides of _ZERO


def quantise(
    model: onnx.ModelProto,
    observed: Sequence[Observed],
    floating: Collection[int] = (),
    weights: Mapping[str, Weight] | None = None,
) -> None:
    """Quantise the linear layers of a float32 stage, in place.

    Args:
        model: with its weights.
        observed: of every linear layer's input, in the order of `Graph.linears`.
        floating: layers by number whose activations stay float32; their weights are quantised all the same.
        weights: by name, as `weight` makes them; None rounds to the nearest.
    """
    graph = Graph(model.graph)
    exact = exact_weights(graph)
    weights = weights or {name: weight(array) for name, array in exact.items()}
    name_of = [linear.weight for linear in graph.linears]
    added = centre(graph, observed, lambda number: exact[name_of[number]] - weights[name_of[number]].values).biases
    for name, made_of in weights.items():
        added |= {
            f"{name}/int8": made_of.numbers,
            f"{name}/scale": made_of.scale,
            f"{name}/zeros": np.full(made_of.scale.shape, _ZERO, np.uint8),
        }
    added["int8/zero"] = np.uint8(_ZERO).reshape(())
    quantised: set[str] = set()  # inputs
    widened: set[str] = set()  # weights

    def made(number: int, linear: Linear) -> list[NodeProto]:
        if number in floating:
            nodes = [] if linear.weight in widened else [_dequantised(linear)]
            widened.add(linear.weight)
            return [
                *nodes,
                helper.make_node("MatMul", [linear.x, f"{linear.weight}/float"], [linear.product.output[0]]),
            ]
        nodes = [] if linear.x in quantised else [_quantised(linear)]
        quantised.add(linear.x)
        return nodes + _product(linear)

    graph.replace_products(made, added)


def error(x: Floats, exact: Floats, seen: Observed, shifted: bool) -> float:
    """What quantising a layer's activations costs: the relative L2 error of its product over some rows x `[r,K]` with
    `[K,N]`."""
    low, high = seen.range(shifted)
    low, high = min(0.0, low), max(0.0, high)
    step = (high - low) / 255 or 1.0
    zero = np.round(-low / step)
    return product_error(
        x,
        exact,
        seen.taken_out(shifted),
        lambda centred: (np.clip(np.round(centred / step) + zero, 0, 255) - zero) * step,
    )


@dataclass(frozen=True)
class Weight:
    """A matrix `[K,N]` as `(numbers - 128) * scale`: uint8 `[K,N]`, float32 `[N]`."""

    numbers: NDArray[np.uint8]
    scale: NDArray[np.float32]

    @property
    def values(self) -> Floats:
        """What the numbers stand for."""
        return (self.numbers.astype(np.float64) - _ZERO) * self.scale


def weight(exact: Floats, moment: NDArray[np.floating[Any]] | None = None) -> Weight:
    """A matrix `[K,N]` with a scale per output, 1 for a column of zeros.

    Args:
        exact: `[K,N]`.
        moment: of its inputs, as `compensated` takes it; None rounds to the nearest.
    """
    largest = np.abs(exact).max(0)
    scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
    steps = lambda rows: np.clip(np.round(rows / scale), -_LARGEST, _LARGEST)
    numbers = steps(exact if moment is None else compensated(exact, moment, lambda rows: steps(rows) * scale))
    return Weight((numbers + _ZERO).astype(np.uint8), scale)


def _dequantised(linear: Linear) -> NodeProto:
    made = [f"{linear.weight}/{part}" for part in ("int8", "scale", "zeros")]
    return helper.make_node("DequantizeLinear", made, [f"{linear.weight}/float"], axis=1)


def _quantised(linear: Linear) -> NodeProto:
    return helper.make_node(
        "DynamicQuantizeLinear", [linear.x], [f"{linear.x}/{part}" for part in ("int8", "scale", "zero")]
    )


def _product(linear: Linear) -> list[NodeProto]:
    """Standard operators in the pattern that ONNX Runtime fuses, the bias that follows included."""
    out, x, weight = linear.product.output[0], linear.x, linear.weight
    return [
        helper.make_node("MatMulInteger", [f"{x}/int8", f"{weight}/int8", f"{x}/zero", "int8/zero"], [f"{out}/sums"]),
        helper.make_node("Cast", [f"{out}/sums"], [f"{out}/wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{x}/scale", f"{weight}/scale"], [f"{out}/scale"]),
        helper.make_node("Mul", [f"{out}/wide", f"{out}/scale"], [out]),
    ]
