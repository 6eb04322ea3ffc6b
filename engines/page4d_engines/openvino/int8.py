"""8-bit products as OpenVINO computes them fast: activations that it quantises itself, or bfloat16.

An int8 graph measures each activation when it runs, one range for the whole tensor, and multiplies bytes. OpenVINO
computes that graph as it stands in float32. Where it sees plain activations and a matrix of bytes, it gives a group of
channels of every row a range of its own and multiplies bytes: faster, and nearer to float32. So that is what it is
given.

On a CPU with AMX, OpenVINO does not quantise activations: it widens the bytes to bfloat16 at every call. There it is
given the matrix in floating point, widened once: four fifths of the time at `vitb` 518x518.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from page4d.errors import EngineError
from page4d_engines.openvino.library import has_bfloat16_tiles, library

# Channels of a row that share a range. At vits 224x224 the kept layer's error is 0.92 % with 32, 1.00 with 64, 1.10
# with 128 and 1.23 with all 384; 128 saves 9 % of the time.
_GROUP = 32


def extensions() -> list[Any]:
    """For `Core.add_extension`: products of bytes become products with matrices of bytes."""
    from openvino.frontend.onnx import ConversionExtension  # after library(), which imports the package

    return [
        ConversionExtension("DynamicQuantizeLinear", _not_quantised),
        ConversionExtension("MatMulInteger", _product),
        ConversionExtension("DequantizeLinear", _float_matrix),
    ]


def settings() -> dict[str, Any]:
    """What stages with products of bytes are compiled with, by OpenVINO's names."""
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP}


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
    if has_bfloat16_tiles():
        matrix = weight.get_node().get_data().astype(np.float32) - zero.get_node().get_data().astype(np.float32)
        return ops.matmul(x, ops.constant(matrix), False, False).outputs()  # [K,N]
    centred = ops.subtract(ops.convert(rows, np.float32), ops.convert(zero, np.float32))
    ones = ops.constant(np.ones((rows.shape[0], 1), np.float32))  # without a scale it is not taken for such a matrix
    return ops.matmul(x, ops.multiply(centred, ones), False, True).outputs()


def _float_matrix(context: Any) -> list[Any]:
    """The matrix of a layer whose activations are not quantised, in float32: of bytes, OpenVINO would quantise them."""
    numbers, scale, zeros = (context.get_input(number).get_node().get_data() for number in range(3))
    matrix = (numbers.astype(np.float32) - zeros.astype(np.float32)) * scale  # [K,N]
    return [library().opset13.constant(matrix).output(0)]
