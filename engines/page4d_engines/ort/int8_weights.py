"""8-bit weights in the form that a CPU multiplies fast.

Engines hold them as unsigned integers around 128, for which ONNX Runtime has exact kernels everywhere. CPUs with VNNI
or AMX have exact instructions for unsigned by signed integers, three to five times as fast, and ONNX Runtime uses them
for signed weights only. Without these instructions signed weights would be summed in 16 bits that saturate, silently.
So the form is chosen when engines are loaded: `(w - 128) x = (w xor 128 as signed) x`, the same sums to the bit.
"""

from __future__ import annotations

import pathlib

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from page4d_engines.ort.onnx_graph import drop_unread
from page4d_engines.stage_files.external_data import is_external, mapped

SIGNED_ZERO = "int8/signed_zero"
"""The constant that signed weights lie around."""


def signed(model: onnx.ModelProto, folder: pathlib.Path) -> dict[str, NDArray[np.int8]]:
    """Make the weights of 8-bit products signed, in place.

    Args:
        model: a stage's, its large initializers not loaded.
        folder: of its ONNX file.

    Returns:
        Those that lay in another file, int8 `[K,N]` by their new names: the model has only their shapes.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weights = weights_of_products(graph)
    external: dict[str, NDArray[np.int8]] = {}
    if not weights:
        return external
    for name in weights:
        tensor, new_name = tensors[name], f"{name}/signed"  # others may read the unsigned one
        if is_external(tensor):
            declared = TensorProto()
            declared.CopyFrom(tensor)
            declared.name, declared.data_type = new_name, TensorProto.INT8
            external[new_name] = (mapped(tensor, folder, np.uint8) ^ 0x80).view(np.int8)
        else:
            declared = numpy_helper.from_array((numpy_helper.to_array(tensor) ^ 0x80).view(np.int8), new_name)
        graph.initializer.append(declared)
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in weights:
            node.input[1], node.input[3] = f"{node.input[1]}/signed", SIGNED_ZERO
    graph.initializer.append(helper.make_tensor(SIGNED_ZERO, TensorProto.INT8, [], [0]))
    drop_unread(graph)
    return external


def weights_of_products(graph: onnx.GraphProto) -> list[str]:
    """Names of the unsigned weights of a graph's 8-bit products, in the order of the products."""
    unsigned = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.UINT8}
    products = (node.input[1] for node in graph.node if node.op_type == "MatMulInteger")
    return list(dict.fromkeys(name for name in products if name in unsigned))
