"""Means of linear layers' inputs, taken out before anything is rounded.

Tokens have much in common, and errors in what is common to all would not average out. So each layer's input is taken
around its mean, which was measured on frames: `x W + b = (x - mean) W + (b + mean W)`, of which only the first product
is
    quantised. The
subtraction costs nothing: it goes into the bias of the LayerNorm before, or, since attention's weights add up to one,
    into that of v;
where neither stands before (the MLP's second layer), x stays as it is and the weights' error on the mean alone is made
good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from page4d_export.quantize.linear_layers import Graph

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """Of a linear layer's input, by channel, over all tokens: float64 `[K]` each."""

    mean: Floats
    low: Floats
    high: Floats

    def taken_out(self, shifted: bool) -> Floats:
        """What is subtracted from the input `[K]`: its mean, or nothing."""
        return self.mean if shifted else np.zeros_like(self.mean)

    def range(self, shifted: bool) -> tuple[float, float]:
        """Least and largest number of the input, around its mean where that is taken out."""
        mean = self.taken_out(shifted)
        return float((self.low - mean).min()), float((self.high - mean).max())


@dataclass(frozen=True)
class Centred:
    """What `centre` did.

    Attributes:
        biases: new constants, by name.
        shifted: names of the inputs that come without their mean now.
    """

    biases: dict[str, NDArray[np.generic]]
    shifted: frozenset[str]


def exact_weights(graph: Graph) -> dict[str, Floats]:
    """Matrices `[K,N]` of the linear layers, by name."""
    names = {linear.weight for linear in graph.linears}
    return {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in graph.proto.initializer
        if tensor.name in names
    }


def is_centred(graph: Graph, number: int) -> bool:
    """Whether a layer's input can come without its mean."""
    linear = graph.linears[number]
    return graph.norm_before(linear) is not None or graph.values_before(linear) is not None


def centre(graph: Graph, observed: Sequence[Observed], lost: Callable[[int], Floats]) -> Centred:
    """Take out the means, in place.

    Args:
        graph: a stage's.
        observed: of every linear layer's input, in their order.
        lost: by a layer's number, what its weights `[K,N]` lose by being rounded.
    """
    constants = {tensor.name: tensor for tensor in graph.proto.initializer}
    value = lambda name: numpy_helper.to_array(constants[name])
    weights = exact_weights(graph)
    biases = {id(linear.add): value(linear.bias).astype(np.float64) for linear in graph.linears}
    added: dict[str, NDArray[np.generic]] = {}
    shifted: set[str] = set()
    for number, (linear, seen) in enumerate(zip(graph.linears, observed, strict=True)):
        if linear.x in shifted or not is_centred(graph, number):
            continue
        norm, values = graph.norm_before(linear), graph.values_before(linear)
        if norm is not None:
            old = value(norm.input[2])
            name = f"{norm.output[0]}/bias"
            added[name] = (old.astype(np.float64) - seen.mean).astype(old.dtype)
            norm.input[2] = name
        elif values is not None:
            biases[id(values.add)] -= seen.mean
        shifted.add(linear.x)
    for number, (linear, seen) in enumerate(zip(graph.linears, observed, strict=True)):
        bias = biases[id(linear.add)] + seen.mean @ (weights[linear.weight] if linear.x in shifted else lost(number))
        name = f"{linear.add.output[0]}/bias"
        added[name] = bias.astype(value(linear.bias).dtype)
        linear.add.input[1] = name
    return Centred(added, frozenset(shifted))


def product_error(x: Floats, exact: Floats, mean: Floats, rounded: Callable[[Floats], Floats]) -> float:
    """What rounding a layer's activations costs: the relative L2 error of its product over some rows x `[r,K]` with
    `[K,N]`."""
    centred = x - mean
    wrong = (rounded(centred) - centred) @ exact
    return float(np.linalg.norm(wrong) / max(np.linalg.norm(x @ exact), np.finfo(np.float64).tiny))
