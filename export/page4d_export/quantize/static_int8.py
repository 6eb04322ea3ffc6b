"""Int8 with static ranges: activations are rounded to ranges that were measured on frames, not as they come.

OpenVINO then rounds inside the product or norm before, and needs no pass over the activations to measure them. The
queries and keys of attention are rounded, too, and multiplied as bytes. What other frames bring beyond the range is cut
off: there is room for more than what was measured, and filmed frames need it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from page4d_export.quantize import int8
from page4d_export.quantize.activation_stats import Seen
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.fixed_range import FixedRange
from page4d_export.quantize.int8 import Weight
from page4d_export.quantize.stage_graph import Floats, Graph, name_of, node

# Times what was measured on frames of the same cameras. At `vits` 224x224, windows of filmed frames exceeded those of
# one of them by up to 13 %; the rendered clip's ranges by up to 19 times, in the projection after attention.
ROOM = 1.25

QueriesAndKeys = tuple[Observed, Observed]
"""Statistics of an attention's queries and keys."""

weight = int8.weight
"""As `Scheme.weight`."""


def quantize(
    model: ir.Model,
    observed: Sequence[Observed],
    floating: Collection[int] = (),
    weights: Mapping[str, Weight] | None = None,
) -> None:
    """As `Scheme.quantize`."""
    int8.quantize(model, observed, floating, weights, ROOM)


def error(x: Floats, exact: Floats, seen: Observed, shifted: bool) -> float:
    """As `Scheme.error`."""
    return int8.error(x, exact, seen, shifted, ROOM)


def round_queries_and_keys(model: ir.Model, observed: Sequence[QueriesAndKeys], floating: Collection[int] = ()) -> None:
    """Round what attention multiplies, in place.

    Args:
        model: of a stage.
        observed: of every attention, in the order of `Graph.attentions`.
        floating: attentions by number whose queries and keys stay as they are.
    """
    graph = Graph(model)
    zero = graph.constant("attention/zero", np.uint8(FixedRange.symmetric(0, 0).zero).reshape(()))
    rounded: dict[str, ir.Value] = {}
    for number, (attention, statistics) in enumerate(zip(graph.attentions, observed, strict=True)):
        if number in floating:
            continue
        for index, (value, seen) in enumerate(zip(attention.queries_and_keys, statistics, strict=True)):
            name = name_of(value)
            if name not in rounded:
                scale = graph.constant(f"{name}/scale", np.float32(_symmetric(seen).scale).reshape(()))
                eight = node("QuantizeLinear", [value, scale, zero], f"{name}/int8")
                back = node("DequantizeLinear", [eight.outputs[0], scale, zero], f"{name}/rounded")
                graph.insert_before(attention.node, [eight, back])
                rounded[name] = back.outputs[0]
                rounded[name].shape, rounded[name].type = value.shape, value.type  # which runtimes read
            attention.node.replace_input_with(index, rounded[name])


def attention_error(queries: Seen, keys: Seen) -> float:
    """What rounding costs a product of queries and keys, nearly: relative L2 errors of both, as independent ones."""
    errors = []
    for seen in (queries, keys):
        wrong = _symmetric(seen.observed).rounded(seen.rows) - seen.rows
        errors.append(float(np.linalg.norm(wrong) / max(np.linalg.norm(seen.rows), np.finfo(np.float64).tiny)))
    return math.hypot(*errors)


def _symmetric(seen: Observed) -> FixedRange:
    return FixedRange.symmetric(*seen.range(False), ROOM)
