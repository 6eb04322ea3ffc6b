"""8-bit products as OpenVINO computes them fast: bytes as weights, and activations that it quantises itself.

An int8 graph measures each activation when it runs, one range for the whole tensor, and multiplies bytes. OpenVINO
computes that graph as it stands in float32. Where it sees plain activations and a matrix of bytes, it gives a group of
channels of every row a range of its own and multiplies bytes: faster, and nearer to float32. So that is what it is
given.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from page4d.errors import EngineError
from page4d_engines.openvino.library import library

_LEAST_GROUP = 32  # channels with a range of their own: as many as OpenVINO multiplies at a time


def extensions() -> list[Any]:
    """For `Core.add_extension`: products of bytes become products with matrices of bytes."""
    from openvino.frontend.onnx import ConversionExtension  # after library(), which imports the package

    return [
        ConversionExtension("DynamicQuantizeLinear", _not_quantised),
        ConversionExtension("MatMulInteger", _product),
        ConversionExtension("DequantizeLinear", _float_matrix),
    ]


def settings(model: Any) -> dict[str, Any]:
    """What a stage's products of bytes are compiled with, by OpenVINO's names; nothing where it has none.

    A row's groups are as large as divides the channels of every product: small ones cost time for scales, and all
    products of a stage have one size.
    """
    nodes = (node for node in model.get_ordered_ops() if _is_product(node))
    group = math.gcd(*(node.input_value(1).get_shape()[1] for node in nodes))
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": group} if group and group % _LEAST_GROUP == 0 else {}


def _not_quantised(context: Any) -> list[Any]:
    """The activation as it is, with scale 1 and zero 0."""
    ops = library().opset13
    return [
        context.get_input(0),
        ops.constant(np.float32(1)).output(0),
        ops.constant(np.uint8(0)).output(0),
    ]


def _product(context: Any) -> list[Any]:
    """`x (w - zero)`, whose scale per column the graph multiplies afterwards."""
    ops = library().opset13
    x, weight, _, zero = (context.get_input(number) for number in range(4))
    if not x.get_element_type().is_real():
        raise EngineError("a product of bytes reads something else than a quantised activation")
    rows = ops.constant(np.ascontiguousarray(weight.get_node().get_data().T))  # [N,K], the form that is not copied
    centred = ops.subtract(ops.convert(rows, np.float32), ops.convert(zero, np.float32))
    ones = ops.constant(np.ones((rows.shape[0], 1), np.float32))  # without a scale it is not taken for such a matrix
    return ops.matmul(x, ops.multiply(centred, ones), False, True).outputs()


def _is_product(node: Any) -> bool:
    """Whether a node is a product with a matrix of bytes `[N,K]`, as `_product` makes it."""
    if node.get_type_name() != "MatMul" or node.input_value(1).get_node().get_type_name() != "Multiply":
        return False
    return bool(node.input_value(1).get_node().input_value(0).get_node().get_type_name() == "Subtract")


def _float_matrix(context: Any) -> list[Any]:
    """The matrix of a layer whose activations are not quantised, in float32: of bytes, OpenVINO would quantise them."""
    numbers, scale, zeros = (context.get_input(number).get_node().get_data() for number in range(3))
    matrix = (numbers.astype(np.float32) - zeros.astype(np.float32)) * scale  # [K,N]
    return [library().opset13.constant(matrix).output(0)]
