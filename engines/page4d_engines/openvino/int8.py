"""8-bit products as OpenVINO computes them fast: bytes times bytes with a range per row, or floating point.

An int8 graph measures each activation when it runs, one range for the whole tensor, and multiplies bytes. OpenVINO
computes that graph as it stands in float32. It multiplies bytes where an activation is rounded to a range that is a
constant (`FakeQuantize`). So each row is divided by its own largest value first, and the product is multiplied by it:
the range is measured when the graph runs, nothing is clipped, and the error is smaller than of one range a tensor.

With static ranges (`QuantizeLinear`) the range is a constant of the graph, and nothing is measured.

Where the CPU has no products of bytes that are both exact and faster, the matrix is given in floating point: without
VNNI their 16-bit sums may saturate, and with AMX products of bfloat16 are nearly as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from page4d.errors import EngineError
from page4d.system.cpu import multiplies_signed
from page4d_engines.openvino.library import has_bfloat16_tiles, library

_ZERO = 128  # of the weights' bytes
_LARGEST = 127
_SMALLEST_SCALE = 1e-12  # for a row of zeros
# GELU is never below -0.17: a quarter of the range is enough for the negative values, once the range is at least 0.68.
# Its steps are then 1.6 times as fine as those of a symmetric range.
_GELU_LOW, _GELU_SCALE = -0.25, 0.68


def multiplies_bytes() -> bool:
    """Whether int8 engines multiply bytes on this CPU; else they multiply floating point."""
    return multiplies_signed() and not has_bfloat16_tiles()


def extensions() -> list[Any]:
    """For `Core.add_extension`: how OpenVINO reads the operators of an int8 graph."""
    from openvino.frontend.onnx import ConversionExtension  # after library(), which imports the package

    return [
        ConversionExtension("DynamicQuantizeLinear", _rounded),
        ConversionExtension("QuantizeLinear", _rounded_to_range),
        ConversionExtension("MatMulInteger", _product),
        ConversionExtension("DequantizeLinear", _dequantised),
    ]


def _rounded(context: Any) -> list[Any]:
    """An activation over its rows' scales, rounded; the scales; zero 0. Without products of bytes: as it is, 1, 0."""
    ops = library().opset13
    x = context.get_input(0)
    if not multiplies_bytes():
        return [x, _constant(np.float32(1)), _constant(np.uint8(0))]
    is_gelu = x.get_node().get_type_name() == "Gelu"
    largest = ops.reduce_max(x if is_gelu else ops.absolute(x), _constant(np.array([-1], np.int64)), True)  # [..,1]
    scale = ops.maximum(largest, _constant(np.float32(_GELU_SCALE if is_gelu else _SMALLEST_SCALE)))
    low = _constant(np.float32(_GELU_LOW if is_gelu else -(_LARGEST + 1) / _LARGEST))
    high = _constant(np.float32(1))
    rounded = ops.fake_quantize(ops.divide(x, scale), low, high, low, high, 256)
    # The product with 1 is for speed: OpenVINO keeps in float32 all that reaches the end of a stage without a product
    # in floating point, and through the scales that would be everything after the attention.
    scale = ops.matmul(scale, _constant(np.ones((1, 1), np.float32)), False, False)
    return [rounded.output(0), scale.output(0), _constant(np.uint8(0))]


def _rounded_to_range(context: Any) -> list[Any]:
    """An activation over the scale of a static range, rounded. Without products of bytes: not rounded."""
    ops = library().opset13
    x = context.get_input(0)
    scale, zero = (context.get_input(number).get_node().get_data() for number in (1, 2))
    if not multiplies_bytes():
        return ops.multiply(x, _constant(np.float32(1 / scale))).outputs()
    steps = np.array([0, 255], np.float32) - np.float32(zero)  # least and largest
    (low, high), (first, last) = (map(_constant, ends) for ends in (steps * np.float32(scale), steps))
    return ops.fake_quantize(x, low, high, first, last, 256).outputs()


def _product(context: Any) -> list[Any]:
    """`x (w - zero)`, whose scales, of rows and of columns, the graph multiplies afterwards."""
    ops = library().opset13
    x, weight, _, zero = (context.get_input(number) for number in range(4))
    if not x.get_element_type().is_real():
        raise EngineError("a product of bytes reads something else than a quantised activation")
    numbers = weight.get_node().get_data()  # [K,N]
    if (middle := zero.get_node().get_data()) != _ZERO:
        raise EngineError("weights of a product of bytes", got=f"around {middle}", allowed=f"around {_ZERO}")
    if not multiplies_bytes():
        return ops.matmul(x, _constant(numbers.astype(np.float32) - _ZERO), False, False).outputs()
    rows = _constant((numbers.T.astype(np.int16) - _ZERO).astype(np.int8))  # [N,K], the form that is not copied
    ones = _constant(np.ones((numbers.shape[1], 1), np.float32))  # without a scale it is not taken for such a matrix
    return ops.matmul(x, ops.multiply(ops.convert(rows, np.float32), ones), False, True).outputs()


def _dequantised(context: Any) -> list[Any]:
    """Bytes times their scale: a rounded activation, or a matrix in float32, which as bytes OpenVINO would multiply."""
    numbers = context.get_input(0)
    scale, zeros = (context.get_input(number).get_node().get_data() for number in (1, 2))
    if numbers.get_node().get_type_name() != "Constant":
        return library().opset13.multiply(numbers, _constant(scale)).outputs()
    matrix = numbers.get_node().get_data().astype(np.float32)  # [K,N]
    return [_constant((matrix - zeros.astype(np.float32)) * scale)]


def _constant(value: Any) -> Any:
    return library().opset13.constant(value).output(0)
