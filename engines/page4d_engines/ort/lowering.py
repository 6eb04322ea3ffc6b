"""A stage's ONNX graph made ready for ONNX Runtime on a CPU: attention lowered, 16-bit tensors widened to float32.

CPUs compute in float32. A 16-bit graph is widened as a whole, weights and all; with `rounding` every result is first
rounded to the type the graph gives it, which shows what the typed graph computes, overflow included.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from page4d.ops import DOMAIN, SEGMENT_ATTENTION, BiasedRows
from page4d_engines.ort import attention_lowering
from page4d_engines.ort.attention_lowering import Lowered, Shape
from page4d_engines.ort.onnx_graph import VIEWS, shed_views, tensors_of
from page4d_engines.stage_files.external_data import is_external

NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
"""Types of 16 bits, as ONNX numbers them."""
# operators that move values and compute none
_MOVES = VIEWS | {"Transpose", "Split", "Concat", "Slice", "Gather", "Expand", "Tile", "Pad", "Cast"}


def lower(model: onnx.ModelProto, rounding: bool, channels: int = 1) -> onnx.ModelProto:
    """Lower a model for ONNX Runtime, in place.

    Large initializers stay in their file and become float32 by declaration only.

    Args:
        model: a stage's.
        rounding: round every 16-bit result as the typed graph does.
        channels: heads that have extra channels get more of them, up to a multiple of this.

    Returns:
        The argument.
    """
    shapes = {name: tensor.shape for name, tensor in tensors_of(model.graph).items()}
    _lower_attention(model, shapes, channels)
    shed_views(model.graph, shapes)
    _widen(model.graph, rounding)
    return model


# ---- attention


def _lower_attention(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], channels: int) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    functions: dict[str, onnx.FunctionProto] = {}
    for number, node in enumerate(model.graph.node):
        if node.domain != DOMAIN:
            continue
        lowered = _lowered(node, shapes, constants, channels)
        name = f"{node.op_type}_{number}"
        imports = '["" : 20, "com.microsoft" : 1]'
        inputs = ", ".join((*lowered.inputs, *lowered.constants))
        text = f'<domain: "{DOMAIN}", opset_import: {imports}>\n{name} ({inputs}) => (out) {{{lowered.body}\n}}'
        functions[name] = onnx.parser.parse_function(text)
        for key, array in lowered.constants.items():
            model.graph.initializer.append(numpy_helper.from_array(array, f"{name}/{key}"))
            node.input.append(f"{name}/{key}")
        node.op_type = name
        del node.attribute[:]
    del model.functions[:]
    model.functions.extend(functions.values())
    if all(imported.domain != "com.microsoft" for imported in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _lowered(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], constants: dict[str, TensorProto], channels: int
) -> Lowered:
    (Z, A, n, D), m = shapes[node.input[0]], shapes[node.input[1]][2]
    shape = Shape(Z=Z, A=A, n=n, m=m, D=D, multiple=channels)
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == SEGMENT_ATTENTION:
        seg_ptr, seg = (numpy_helper.to_array(constants[name]) for name in node.input[4:6])
        segment_bias = _wide(constants[node.input[6]]) if len(node.input) == 7 else None
        return attention_lowering.segmented(shape, seg_ptr, seg, segment_bias)
    if len(node.input) == 6:
        return attention_lowering.epipolar(
            shape, shapes[node.input[4]][0], attributes["epipolar_band"], attributes["epipolar_penalty"]
        )
    rows = None
    if "row_period" in attributes:
        rows = BiasedRows(attributes["row_period"], attributes["row_leading"], attributes["row_gain"])
    return attention_lowering.biased(shape, has_bias=len(node.input) == 4, rows=rows)


# ---- precision


def _widen(graph: onnx.GraphProto, rounding: bool) -> None:
    narrow = {
        value.name: value.type.tensor_type.elem_type
        for value in _values(graph)
        if value.type.tensor_type.elem_type in NARROW
    }
    for value in _values(graph):
        if value.name in narrow:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type not in NARROW:
            continue
        if is_external(tensor):
            tensor.data_type = TensorProto.FLOAT  # whoever maps the file widens it
        else:
            graph.initializer[index].CopyFrom(numpy_helper.from_array(_wide(tensor), tensor.name))
    if not narrow:
        return
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        narrowing = [
            attribute
            for attribute in node.attribute
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in NARROW
        ]
        for attribute in narrowing:
            attribute.i = TensorProto.FLOAT
        casts = _rounded(node, narrow) if rounding and (narrowing or node.op_type not in _MOVES) else []
        graph.node.append(node)
        graph.node.extend(casts)
    del graph.value_info[:]  # the types of what was inserted are inferred anew


def _rounded(node: onnx.NodeProto, narrow: dict[str, int]) -> list[onnx.NodeProto]:
    """Rename the node's 16-bit outputs; the nodes that round them and give them their names back."""
    casts = []
    for index, name in enumerate(node.output):
        if name in narrow:
            node.output[index] = f"{name}/wide"
            casts.append(helper.make_node("Cast", [f"{name}/wide"], [f"{name}/narrow"], to=narrow[name]))
            casts.append(helper.make_node("Cast", [f"{name}/narrow"], [name], to=TensorProto.FLOAT))
    return casts


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.output, *graph.value_info)


def _wide(tensor: TensorProto) -> NDArray[np.float32]:
    return np.ascontiguousarray(numpy_helper.to_array(tensor).astype(np.float32))
