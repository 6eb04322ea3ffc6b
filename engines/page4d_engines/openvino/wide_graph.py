"""A 16-bit graph as one of float32, for a device that is told in which type to compute.

As it stands, a 16-bit graph rounds every sum of its residuals to 16 bits. In a float32 graph OpenVINO computes products
and attention in 16 bits all the same, and keeps a stage's last sums and its outputs in float32: half the error at the
same speed (docs/internals/experiments.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from page4d_engines.openvino.library import library


def widen(model: Any) -> None:
    """Make every 16-bit floating-point tensor of a model float32, in place: inputs, outputs, weights, loops' bodies."""
    types, ops = library().Type, library().opset13
    narrow = (types.f16, types.bf16)
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "TensorIterator":
            widen(node.get_function())
        elif kind == "Parameter" and node.get_element_type() in narrow:
            node.set_element_type(types.f32)
        elif kind == "Constant" and node.get_element_type() in narrow:
            _replace(node, ops.constant(np.ascontiguousarray(node.get_data(dtype=np.float32))))
        elif kind == "Convert" and node.get_output_element_type(0) in narrow:
            _replace(node, ops.convert(node.input_value(0), types.f32))
    model.validate_nodes_and_infer_types()


def _replace(node: Any, other: Any) -> None:
    other.set_friendly_name(node.get_friendly_name())
    other.output(0).set_names(node.output(0).get_names())
    node.output(0).replace(other.output(0))
