"""Whether a stage's graph for ONNX Runtime on a CPU is what the exporter makes of the stage.

It is checked before anything loads it, as the stage's own ONNX file is (onnx_check.py). Such a graph has loops.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from page4d.errors import EngineError
from page4d.manifest import Manifest, StageEntry, TensorSpec
from page4d.ops import BIASED_ATTENTION, DOMAIN, SEGMENT_ATTENTION
from page4d_engines.stage_files.onnx_check import ONNX_TYPES, check_weights, parsed, type_name

_STANDARD = ("", "ai.onnx")
_ATTENTION = ("com.microsoft", "MultiHeadAttention")
_MOST_TRIPS = 1 << 20  # of a loop: a part of a sequence's queries, or a group of them, each
_AGAIN = "page4d-export again"
_NO_CONSTANTS: Mapping[str, NodeProto] = MappingProxyType({})


def check_cpu_graph(content: bytes, file: str, folder: pathlib.Path, manifest: Manifest, entry: StageEntry) -> None:
    """Check a graph for a CPU.

    Args:
        content: of the file.
        file: its name in the manifest.
        folder: the engine folder.
        manifest: its manifest, which was checked.
        entry: of the stage.

    Raises:
        EngineError: it is damaged, has inputs or outputs of other names, types or sizes than the stage has in float32,
            operators of an unknown kind, a loop that may not end, or weights that are not in a file beside it that the
            manifest lists.
    """
    model = parsed(content, file)
    _check_borders(file, "input", model.graph.input, entry.inputs)
    _check_borders(file, "output", model.graph.output, entry.outputs)
    functions = {function.name for function in model.functions}
    for function in model.functions:
        kind = function.name.rpartition("_")[0]
        if function.domain != DOMAIN or kind not in (BIASED_ATTENTION, SEGMENT_ATTENTION):
            raise _unknown(file, f"{function.domain or 'a standard domain'}: {function.name}")
    for node in model.graph.node:
        if any(_graphs(node)):
            raise _unknown(file, f"{node.op_type}, which has a graph inside")
        if node.domain not in _STANDARD and not (node.domain == DOMAIN and node.op_type in functions):
            raise _unknown(file, f"{node.domain}: {node.op_type}")
    for function in model.functions:
        _check_body(file, function)
    check_weights(file, _all_nodes(model), model, folder, manifest)


def _check_borders(file: str, what: str, values: Iterable[ValueInfoProto], specs: Iterable[TensorSpec]) -> None:
    """Types are float32 for 16 bits; shapes may be views of the manifest's."""
    actual = {value.name: _type_and_count(value) for value in values}
    expected = {spec.binding: (_wide(spec.dtype), math.prod(spec.shape)) for spec in specs}
    if actual != expected:
        raise EngineError(
            f"{file} has other {what}s than the manifest says",
            got=_listed(actual) or "none",
            allowed=_listed(expected),
            hint=_AGAIN,
        )


def _listed(tensors: Mapping[str, tuple[int, int]]) -> str:
    sizes = {name: "of no fixed size" if count < 0 else f"[{count}]" for name, (_, count) in tensors.items()}
    return ", ".join(f"{name} {type_name(dtype)} {sizes[name]}" for name, (dtype, _) in sorted(tensors.items()))


def _wide(dtype: str) -> int:
    return int(TensorProto.FLOAT) if dtype in ("float16", "bfloat16") else int(ONNX_TYPES[dtype])


def _type_and_count(value: ValueInfoProto) -> tuple[int, int]:
    """ONNX's number of the type, and the number of elements: -1 where a size is not fixed."""
    tensor = value.type.tensor_type
    sides = [size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else -1 for size in tensor.shape.dim]
    return tensor.elem_type, -1 if -1 in sides else math.prod(sides)


def _check_body(file: str, body: FunctionProto | GraphProto, outer: Mapping[str, NodeProto] = _NO_CONSTANTS) -> None:
    """ONNX's own operators and ONNX Runtime's attention; loops of a fixed number of trips.

    Args:
        file: the graph's.
        body: of a function or a loop.
        outer: the constants of the bodies around it, by name.
    """
    own = {node.output[0]: node for node in body.node if node.op_type == "Constant" and node.output}
    constants = {**outer, **own}
    for node in body.node:
        if node.domain not in _STANDARD and (node.domain, node.op_type) != _ATTENTION:
            raise _unknown(file, f"{node.domain}: {node.op_type}")
        inner = list(_graphs(node))
        if inner and not (node.op_type == "Loop" and node.input and _trips(constants, node.input[0]) <= _MOST_TRIPS):
            raise _unknown(file, f"{node.op_type}, which has a graph inside and no fixed number of trips")
        for graph in inner:
            _check_body(file, graph, constants)


def _trips(constants: Mapping[str, NodeProto], name: str) -> float:
    """Of a loop whose number of trips is this constant; infinite where it is none, or a function's caller gives it."""
    node = constants.get(name)
    attributes = [attribute for attribute in node.attribute if attribute.name == "value_int"] if node else []
    return float(attributes[0].i) if attributes and not attributes[0].ref_attr_name else math.inf


def _graphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Those of loops' bodies, too."""
    bodies: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    while bodies:
        for node in bodies.pop().node:
            yield node
            bodies.extend(_graphs(node))


def _unknown(file: str, got: str) -> EngineError:
    allowed = f"ONNX's own, {DOMAIN}'s attention as functions, {'.'.join(_ATTENTION)} in these"
    return EngineError(f"{file} has an operator of an unknown kind", got=got, allowed=allowed, hint=_AGAIN)
