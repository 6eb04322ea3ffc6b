"""Means of linear layers' inputs, taken out before anything is rounded.

Tokens have much in common, and errors in what is common to all would not average out. So each layer's input is taken
around its mean, which was measured on frames: `x W + b = (x - mean) W + (b + mean W)`, of which only the first product
is quantized. The subtraction costs nothing: it goes into the bias of the LayerNorm before, or, since attention's
weights add up to one, into that of v. Where neither stands before (the MLP's second layer), x stays as it is, and the
bias makes good what rounded weights lose on the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from page4d_export.quantize.stage_graph import Floats, Graph, array_of, input_of


@dataclass(frozen=True)
class Observed:
    """Statistics of a linear layer's input by channel, over all tokens: float64 `[K]` each."""

    mean: Floats
    low: Floats
    high: Floats

    def taken_out(self, shifted: bool) -> Floats:
        """The vector that is subtracted from the input `[K]`: its mean, or nothing."""
        return self.mean if shifted else np.zeros_like(self.mean)

    def range(self, shifted: bool) -> tuple[float, float]:
        """Least and largest value of the input, around its mean where that is taken out."""
        mean = self.taken_out(shifted)
        return float((self.low - mean).min()), float((self.high - mean).max())


def is_centered(graph: Graph, number: int) -> bool:
    """Whether a layer's input can come without its mean."""
    linear = graph.linears[number]
    return graph.norm_before(linear) is not None or graph.values_before(linear) is not None


def center(graph: Graph, observed: Sequence[Observed], lost: Callable[[int], Floats]) -> frozenset[str]:
    """Take out the means, in place.

    Args:
        graph: a stage's.
        observed: of every linear layer's input, in their order.
        lost: by a layer's number, what its weights `[K,N]` lose by being rounded.

    Returns:
        Names of the inputs that come without their mean from here on.
    """
    old = {id(linear.add): array_of(linear.bias) for linear in graph.linears}
    biases = {key: array.astype(np.float64) for key, array in old.items()}
    shifted: set[str] = set()
    for number, (linear, seen) in enumerate(zip(graph.linears, observed, strict=True)):
        if linear.x in shifted or not is_centered(graph, number):
            continue
        norm, values = graph.norm_before(linear), graph.values_before(linear)
        if norm is not None:
            bias = array_of(input_of(norm, 2))
            moved = (bias.astype(np.float64) - seen.mean).astype(bias.dtype)
            norm.replace_input_with(2, graph.constant(f"{norm.outputs[0].name}/bias", moved))
        elif values is not None:
            biases[id(values.add)] -= seen.mean
        shifted.add(linear.x)
    for number, (linear, seen) in enumerate(zip(graph.linears, observed, strict=True)):
        bias = biases[id(linear.add)] + seen.mean @ (linear.exact if linear.x in shifted else lost(number))
        name = f"{linear.add.outputs[0].name}/bias"
        linear.add.replace_input_with(1, graph.constant(name, bias.astype(old[id(linear.add)].dtype)))
    return frozenset(shifted)


def product_error(x: Floats, exact: Floats, mean: Floats, rounded: Callable[[Floats], Floats]) -> float:
    """The relative L2 error of the product of rows x `[r,K]` and a matrix `[K,N]` when `x - mean` is rounded."""
    centered = x - mean
    error = (rounded(centered) - centered) @ exact
    return float(np.linalg.norm(error) / max(np.linalg.norm(x @ exact), np.finfo(np.float64).tiny))
