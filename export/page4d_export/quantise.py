"""Int8: the linear layers of a stage as products of 8-bit integers, activations quantised as they come.

Weights lie as uint8 around 128, with a scale per output. Unsigned, because processors without VNNI multiply unsigned by signed
bytes with a saturating 16-bit sum, whose results are silently wrong; ONNX Runtime has exact kernels for two unsigned ones on all.

Tokens have much in common, and errors in what is common to all would not average out. So each layer's input is taken around its
mean, which was measured on frames: `x W + b = (x - mean) W + (b + mean W)`, of which only the first product is quantised. The
subtraction costs nothing: it goes into the bias of the LayerNorm before, or, since attention's weights add up to one, into that of v;
where neither stands before (the MLP's second layer), x stays as it is and the weights' error on the mean alone is made good.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from page4d_export.linears import Graph, Linear

_ZERO = 128
_LARGEST = 127  # so that the range is the same on both sides of _ZERO


@dataclass(frozen=True)
class Observed:
    """Of a linear layer's input, by channel, over all tokens: float64 `[K]` each."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def quantise(model: onnx.ModelProto, observed: Sequence[Observed], floating: Collection[int] = ()) -> None:
    """Quantise the linear layers of a float32 stage, in place.

    Args:
        model: with its weights.
        observed: of every linear layer's input, in the order of `Graph.linears`.
        floating: layers by number whose activations stay float32; their weights are quantised all the same.
    """
    graph = Graph(model.graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    value = lambda name: numpy_helper.to_array(constants[name]).astype(np.float64)
    biases = {id(linear.add): value(linear.bias) for linear in graph.linears}
    shifts: dict[str, NDArray[np.float64]] = {}  # by input
    added: dict[str, NDArray[np.generic]] = {}
    for linear, seen in zip(graph.linears, observed, strict=True):
        norm, values = graph.norm_before(linear), graph.values_before(linear)
        if norm is not None and linear.x not in shifts:
            added[f"{norm.output[0]}/bias"] = (value(norm.input[2]) - seen.mean).astype(np.float32)
            norm.input[2] = f"{norm.output[0]}/bias"
        elif values is not None:
            biases[id(values.add)] -= seen.mean
        if norm is not None or values is not None:
            shifts[linear.x] = seen.mean
    weights: dict[str, Weight] = {}
    for linear, seen in zip(graph.linears, observed, strict=True):
        exact = value(linear.weight)
        if linear.weight not in weights:
            weights[linear.weight] = Weight.of(exact)
        lost = exact if linear.x in shifts else exact - weights[linear.weight].values
        biases[id(linear.add)] += seen.mean @ lost
        added[f"{linear.add.output[0]}/bias"] = biases[id(linear.add)].astype(np.float32)
        linear.add.input[1] = f"{linear.add.output[0]}/bias"
    for name, weight in weights.items():
        added |= {f"{name}/int8": weight.numbers, f"{name}/scale": weight.scale}
    added["int8/zero"] = np.uint8(_ZERO).reshape(())
    _rewrite(model, graph, frozenset(floating), added)
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in added.items() if name in used)


def error(x: NDArray[np.float64], exact: NDArray[np.float64], seen: Observed, shifted: bool) -> float:
    """What quantising a layer's activations costs: the relative L2 error of its product over some rows x `[r,K]` with `[K,N]`."""
    mean = seen.mean if shifted else np.zeros_like(seen.mean)
    low, high = min(0.0, float((seen.low - mean).min())), max(0.0, float((seen.high - mean).max()))
    step = (high - low) / 255 or 1.0
    centred = x - mean
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(centred / step) + zero, 0, 255) - zero) * step
    product = x @ exact
    return float(np.linalg.norm((rounded - centred) @ exact) / max(np.linalg.norm(product), np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class Weight:
    """A matrix `[K,N]` as `(numbers - 128) * scale`: uint8 `[K,N]`, float32 `[N]`."""

    numbers: NDArray[np.uint8]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, exact: NDArray[np.float64]) -> Weight:
        """Rounded to the nearest; a column of zeros has scale 1."""
        largest = np.abs(exact).max(0)
        scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype(np.float32)
        return cls((np.clip(np.round(exact / scale), -_LARGEST, _LARGEST) + _ZERO).astype(np.uint8), scale)

    @property
    def values(self) -> NDArray[np.float64]:
        """What the numbers stand for."""
        return (self.numbers.astype(np.float64) - _ZERO) * self.scale


def _rewrite(model: onnx.ModelProto, graph: Graph, floating: frozenset[int], added: dict[str, NDArray[np.generic]]) -> None:
    numbers = {linear.product.output[0]: number for number, linear in enumerate(graph.linears)}
    by_product = {linear.product.output[0]: linear for linear in graph.linears}
    nodes: list[NodeProto] = []
    quantised: set[str] = set()  # inputs
    widened: set[str] = set()  # weights
    for node in model.graph.node:
        linear = by_product.get(node.output[0]) if node.output else None
        if linear is None:
            nodes.append(node)
            continue
        if numbers[node.output[0]] in floating:
            if linear.weight not in widened:
                widened.add(linear.weight)
                zeros = f"{linear.weight}/zeros"
                added[zeros] = np.full(added[f"{linear.weight}/scale"].shape, _ZERO, np.uint8)
                made = [f"{linear.weight}/int8", f"{linear.weight}/scale", zeros]
                nodes.append(helper.make_node("DequantizeLinear", made, [f"{linear.weight}/float"], axis=1))
            nodes.append(helper.make_node("MatMul", [linear.x, f"{linear.weight}/float"], [node.output[0]]))
            continue
        if linear.x not in quantised:
            quantised.add(linear.x)
            parts = [f"{linear.x}/{part}" for part in ("int8", "scale", "zero")]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [linear.x], parts))
        nodes.extend(_product(linear))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _product(linear: Linear) -> list[NodeProto]:
    """Standard operators in the pattern that ONNX Runtime fuses, the bias that follows included."""
    out, x, weight = linear.product.output[0], linear.x, linear.weight
    return [
        helper.make_node("MatMulInteger", [f"{x}/int8", f"{weight}/int8", f"{x}/zero", "int8/zero"], [f"{out}/sums"]),
        helper.make_node("Cast", [f"{out}/sums"], [f"{out}/wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{x}/scale", f"{weight}/scale"], [f"{out}/scale"]),
        helper.make_node("Mul", [f"{out}/wide", f"{out}/scale"], [out]),
    ]
