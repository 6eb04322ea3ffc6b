"""Whether a stage's graph for ONNX Runtime on a CPU is what the exporter makes of the stage.

It is checked before anything loads it, as the stage's own ONNX file is (onnx_check.py). Such a graph has loops.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from page4d.errors import EngineError
from page4d.manifest import Manifest, StageEntry, TensorSpec
from page4d.ops import BIASED_ATTENTION, DOMAIN, SEGMENT_ATTENTION
from page4d_engines.stage_files.onnx_check import ONNX_TYPES, check_weights, parsed, type_name
from page4d_engines.stage_files.onnx_file import Node, Value

_STANDARD = ("", "ai.onnx")
_ATTENTION = ("com.microsoft", "MultiHeadAttention")
_MOST_TRIPS = 1 << 20  # of a loop times those around it: each a part of a sequence's queries, or a group of them
_AGAIN = "page4d-export again"

Scope = Mapping[str, "int | None"]
"""The names of a body: those of constant integers with their value, all others with None."""


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
            operators of an unknown kind, loops that may not end or have too many trips, or weights that are not in a
            file beside it that the manifest lists.
    """
    model = parsed(content, file)
    _check_borders(file, "input", model.graph.inputs, entry.inputs)
    _check_borders(file, "output", model.graph.outputs, entry.outputs)
    functions = {function.name for function in model.functions}
    for function in model.functions:
        kind = function.name.rpartition("_")[0]
        if function.domain != DOMAIN or kind not in (BIASED_ATTENTION, SEGMENT_ATTENTION) or function.defaults:
            raise _unknown(file, f"{function.domain or 'a standard domain'}: {function.name}")
    for node in model.graph.nodes:
        if node.graphs:
            raise _unknown(file, f"{node.op_type}, which has a graph inside")
        if node.domain not in _STANDARD and not (node.domain == DOMAIN and node.op_type in functions):
            raise _unknown(file, f"{node.domain}: {node.op_type}")
    for function in model.functions:
        _check_body(file, function.nodes, function.inputs, (), 1)
    check_weights(file, model, folder, manifest)


def _check_borders(file: str, what: str, values: Sequence[Value], specs: Iterable[TensorSpec]) -> None:
    """Types are float32 for 16 bits; shapes may be views of the manifest's."""
    actual = {value.name: _type_and_count(value) for value in values}
    expected = {spec.binding: (_wide(spec.dtype), math.prod(spec.shape)) for spec in specs}
    if actual != expected or len(values) != len(expected):
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
    return ONNX_TYPES["float32"] if dtype in ("float16", "bfloat16") else ONNX_TYPES[dtype]


def _type_and_count(value: Value) -> tuple[int, int]:
    """ONNX's number of the type, and the number of elements: -1 where a size is not fixed."""
    return value.dtype, -1 if -1 in value.shape else math.prod(value.shape)


def _check_body(
    file: str, nodes: Iterable[Node], source_names: Iterable[str], around: tuple[Scope, ...], trips_around: int
) -> None:
    """ONNX's own operators and ONNX Runtime's attention; loops of a fixed number of trips.

    Args:
        file: the graph's.
        nodes: of a function or a loop's body.
        source_names: names of values that no node of the body makes.
        around: the scopes of the bodies around it, the innermost first.
        trips_around: the product of the trips of the loops around it.
    """
    nodes = list(nodes)
    own: dict[str, int | None] = dict.fromkeys([*source_names, *(name for node in nodes for name in node.outputs)])
    own.update(filter(None, map(_constant, nodes)))
    scopes = (own, *around)
    for node in nodes:
        if node.domain not in _STANDARD and (node.domain, node.op_type) != _ATTENTION:
            raise _unknown(file, f"{node.domain}: {node.op_type}")
        if not node.graphs:
            continue
        trips = _looked_up(scopes, node.inputs[0]) if node.op_type == "Loop" and node.inputs else None
        if trips is None:
            raise _unknown(file, f"{node.op_type}, which has a graph inside and no fixed number of trips")
        product = trips_around * max(trips, 1)
        if product > _MOST_TRIPS:
            raise _unknown(file, f"Loop of {product} trips, with the loops around it; up to {_MOST_TRIPS} are allowed")
        for graph in node.graphs:
            _check_body(file, graph.nodes, graph.source_names, scopes, product)


def _looked_up(scopes: Iterable[Scope], name: str) -> int | None:
    """The integer of that name, in the innermost scope that has the name; None: it is no constant integer."""
    return next((scope[name] for scope in scopes if name in scope), None)


def _constant(node: Node) -> tuple[str, int] | None:
    """Name and value of an integer that a node makes; None: it makes something else, or a function's caller gives it.

    An empty name stands for an input that is absent, and is the name of nothing.
    """
    if node.op_type != "Constant" or node.domain not in _STANDARD or len(node.outputs) != 1 or not node.outputs[0]:
        return None
    if len(node.attributes) != 1 or node.attributes[0].name != "value_int":
        return None
    value = node.attributes[0].integer
    return None if value is None else (node.outputs[0], value)


def _unknown(file: str, got: str) -> EngineError:
    allowed = f"ONNX's own, {DOMAIN}'s attention as functions, {'.'.join(_ATTENTION)} in these"
    return EngineError(f"{file} has an operator of an unknown kind", got=got, allowed=allowed, hint=_AGAIN)
