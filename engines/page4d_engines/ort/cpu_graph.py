"""The graphs that ONNX Runtime runs on a CPU, as files: written by the exporter, loaded as they are by every runtime.

A stage's graph is lowered once, when it is exported. Its weights stay where they are, in the file beside the stage's
own graph; what has to be done to them (16 bits widened, 8 bits made signed) is written as operators over constants,
which ONNX Runtime computes once, when it loads the graph.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from page4d_engines.ort.int8_weights import SIGNED_ZERO, weights_of_products
from page4d_engines.ort.lowering import NARROW, lower
from page4d_engines.ort.onnx_graph import drop_unread
from page4d_engines.stage_files.external_data import is_external

SUFFIX, SIGNED_SUFFIX = ".cpu.onnx", ".vnni.onnx"
"""Of the files: for every CPU; for those with exact products of unsigned by signed bytes, of stages that have such."""


def write_cpu_graphs(stage: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Write the graphs of a stage beside it: `<stage>.cpu.onnx`, and `<stage>.vnni.onnx` where it multiplies bytes.

    Args:
        stage: the stage's own ONNX file.

    Returns:
        Both paths; None: the graph multiplies no bytes, and one serves every CPU.
    """
    model = onnx.load(stage, load_external_data=False)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer if is_external(tensor)}
    lower(model, rounding=False)
    _widen_weights(model.graph, types)
    path = _written(model, stage.with_suffix(SUFFIX))
    if not _make_signed(model.graph):
        return path, None
    return path, _written(model, stage.with_suffix(SIGNED_SUFFIX))


def _written(model: onnx.ModelProto, path: pathlib.Path) -> pathlib.Path:
    drop_unread(model.graph)  # ONNX Runtime would warn of each when it loads the graph
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def _widen_weights(graph: onnx.GraphProto, types: Mapping[str, int]) -> None:
    """Weights of 16 bits in another file, which lowering declared float32, become that by a Cast."""
    casts = []
    for tensor in graph.initializer:
        dtype = types.get(tensor.name)
        if dtype in NARROW:
            name, tensor.data_type = tensor.name, dtype
            tensor.name = f"{name}/narrow"
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    _prepend(graph, casts)


def _make_signed(graph: onnx.GraphProto) -> bool:
    """The weights of products of bytes become signed, `w - 128`; whether there are any."""
    weights = weights_of_products(graph)
    if not weights:
        return False
    steps, offset = [], "int8/offset"
    for name in weights:
        wide, centred, signed = f"{name}/wide", f"{name}/centred", f"{name}/signed"
        steps.append(helper.make_node("Cast", [name], [wide], to=TensorProto.INT32))
        steps.append(helper.make_node("Sub", [wide, offset], [centred]))
        steps.append(helper.make_node("Cast", [centred], [signed], to=TensorProto.INT8))
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in weights:
            node.input[1], node.input[3] = f"{node.input[1]}/signed", SIGNED_ZERO
    graph.initializer.append(numpy_helper.from_array(np.array(128, np.int32), offset))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), SIGNED_ZERO))
    _prepend(graph, steps)
    return True


def _prepend(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    if nodes:
        rest = list(graph.node)
        del graph.node[:]
        graph.node.extend([*nodes, *rest])
