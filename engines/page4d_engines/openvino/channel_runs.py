"""Runs of channels in another order, as the rotary embedding swaps them: OpenVINO moves single channels faster.

Its `Gather` of runs (16 channels of `[..,4,16]`) takes 2.6 times as long as one of all 64 channels by number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from page4d_engines.openvino.library import library

_MOST_CHANNELS = 1024  # of which the order is spelled out


def extensions() -> list[Any]:
    """For `Core.add_extension`: `Gather` of runs becomes one of channels; every other one stays."""
    from openvino.frontend.onnx import ConversionExtension  # after library(), which imports the package

    return [ConversionExtension("Gather", _gather)]


def _gather(context: Any) -> list[Any]:
    ops = library().opset13
    x, index = context.get_input(0), context.get_input(1)
    axis = context.get_attribute("axis", 0)
    constant, shape = index.get_node(), x.get_partial_shape()
    is_known = constant.get_type_name() == "Constant" and shape.is_static
    sizes = tuple(shape.to_shape()) if is_known else ()
    if len(sizes) < 3 or axis % len(sizes) != len(sizes) - 2 or math.prod(sizes[-2:]) > _MOST_CHANNELS:
        return ops.gather(x, index, ops.constant(np.int64(axis))).outputs()
    order = np.arange(math.prod(sizes[-2:])).reshape(sizes[-2:])[constant.get_data()]  # [..index,channels of a run]
    flat = ops.reshape(x, ops.constant(np.array([*sizes[:-2], -1], np.int64)), False)
    moved = ops.gather(flat, ops.constant(order.reshape(-1)), ops.constant(np.int64(-1)))
    return ops.reshape(moved, ops.constant(np.array([*sizes[:-2], *order.shape], np.int64)), False).outputs()
