"""Small ONNX models of what the runtime does between stages: constants, and kept layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from page4d.manifest import TensorSpec
from page4d_engines.stage_files.onnx_check import ONNX_TYPES

_OPSET, _IR = 17, 8  # Concat, Transpose and Reshape have bfloat16 since 13; older servers read these, too


def constants_model(
    unused: TensorSpec, outputs: Mapping[str, TensorSpec], values: Mapping[str, NDArray[np.float32]]
) -> onnx.ModelProto:
    """A model that gives the same every time.

    Args:
        unused: its input, since Triton knows no model without one; no node reads it.
        outputs: by the constant's name.
        values: by the same names, already rounded to the outputs' types.
    """
    weights = [
        helper.make_tensor(
            f"{name}.value", ONNX_TYPES[spec.dtype], spec.shape, _bytes(values[name], spec.dtype), raw=True
        )
        for name, spec in outputs.items()
    ]
    nodes = [helper.make_node("Identity", [f"{name}.value"], [spec.binding]) for name, spec in outputs.items()]
    return _model("constants", nodes, [unused], outputs.values(), weights)


def layers_model(parts: Sequence[TensorSpec], layer: TensorSpec, streams: int) -> onnx.ModelProto:
    """A model that gathers a kept layer `[..,N,S*parts*C]`: each part's tokens, side by side per stream.

    Args:
        parts: its inputs, tokens `[S or 1,..,N,C]`. One that computed one stream stands for all.
        layer: its output.
        streams: S.
    """
    nodes, joined = [], []
    lead = parts[0].shape[1:-1]
    for number, spec in enumerate(parts):
        whole = spec.binding
        if spec.shape[0] < streams:
            whole = f"streams.{number}"  # by Concat: Expand has no bfloat16 on a CPU
            nodes.append(helper.make_node("Concat", [spec.binding] * streams, [whole], axis=0))
        nodes.append(helper.make_node("Reshape", [whole, "by_part"], [f"part.{number}"]))
        joined.append(f"part.{number}")
    rank = len(lead) + 3
    nodes.append(helper.make_node("Concat", joined, ["parts"], axis=rank - 2))
    nodes.append(
        helper.make_node("Transpose", ["parts"], ["by_token"], perm=[*range(1, rank - 2), 0, rank - 2, rank - 1])
    )
    nodes.append(helper.make_node("Reshape", ["by_token", "whole"], [layer.binding]))
    shapes = {"by_part": (streams, *lead, 1, parts[0].shape[-1]), "whole": layer.shape}
    sizes = [helper.make_tensor(name, TensorProto.INT64, [len(shape)], shape) for name, shape in shapes.items()]
    return _model("layers", nodes, parts, [layer], sizes)


def _model(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    weights: list[onnx.TensorProto],
) -> onnx.ModelProto:
    input_values, output_values = (
        [helper.make_tensor_value_info(spec.binding, ONNX_TYPES[spec.dtype], spec.shape) for spec in specs]
        for specs in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, name, input_values, output_values, weights)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR, producer_name="page4d"
    )
    onnx.checker.check_model(model)
    return model


def _bytes(values: NDArray[np.float32], dtype: str) -> bytes:
    wide: NDArray[Any] = np.ascontiguousarray(values, "<f4")
    if dtype == "bfloat16":
        return (wide.view("<u4") >> 16).astype("<u2").tobytes()  # a bfloat16 is a float32's upper half
    return wide.astype("<f2" if dtype == "float16" else "<f4").tobytes()
