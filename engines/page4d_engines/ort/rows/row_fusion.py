"""Fewer passes over memory in a 16-bit graph: operators between two matrix products become one call of a row kernel.

ONNX Runtime computes a bias, a factor, a sum, a norm and each step of the rotary embedding one after the other, several
in float32. A marker node of the domain `ROWS` replaces each such chain; all else stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

from onnx import GraphProto, NodeProto, helper

from page4d_engines.ort.onnx_graph import VIEWS, GraphIndex, replace_nodes
from page4d_engines.ort.rows.row_patterns import PatternMatcher
from page4d_engines.ort.rows.row_patterns import RowCall as RowCall

ROWS = "page4d.rows"
"""Domain of the nodes that `fuse_rows` puts into a graph; the operator is the kernel's name, the first output names the
call."""


def fuse_rows(graph: GraphProto) -> dict[str, RowCall]:
    """Replace what row kernels compute by calls of them, in place.

    Args:
        graph: with the shape of every tensor; large weights need not be loaded.

    Returns:
        The calls by their marker's first output.
    """
    nodes = list(graph.node)
    matcher = PatternMatcher(graph, nodes)
    norms = {matcher.index.behind_views(norm.source): norm for norm in matcher.norms()}
    calls: dict[int, RowCall] = {}  # by the id of the node whose place it takes
    for node in nodes:
        call = matcher.match_residual_add(node, norms) or matcher.match_gelu(node) or matcher.match_qk_norm_rope(node)
        if call is not None:
            calls[id(node)] = call
    computed = {name for call in calls.values() for name in call.outputs.values()}
    fused = {id(norm.result) for norm in norms.values() if norm.result.output[0] in computed}  # with the sum before
    for norm in norms.values():
        if id(norm.result) not in fused and (call := matcher.match_norm(norm)) is not None:
            calls[id(norm.result)] = call
    nodes = [_marker(calls[id(node)]) if id(node) in calls else node for node in nodes if id(node) not in fused]
    nodes = _live(nodes, {value.name for value in graph.output})
    by_output = {next(iter(call.outputs.values())): call for call in calls.values()}
    placed = _write_behind_views(nodes, by_output, graph)
    replace_nodes(graph, nodes)
    return placed


def _marker(call: RowCall) -> NodeProto:
    return helper.make_node(call.kernel.value, list(call.inputs.values()), list(call.outputs.values()), domain=ROWS)


def _live(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Without those whose results nobody reads."""
    needed, live = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(node.input)
    return live[::-1]


def _write_behind_views(nodes: list[NodeProto], calls: dict[str, RowCall], graph: GraphProto) -> dict[str, RowCall]:
    """Let calls write where views of their results lead, and over inputs that nobody else reads; changes the nodes."""
    readers = GraphIndex(nodes).readers
    borders = {value.name for value in (*graph.input, *graph.output)} | {tensor.name for tensor in graph.initializer}
    placed = {}
    for node in [node for node in nodes if node.domain == ROWS]:
        call = calls[node.output[0]]
        outputs = {}
        for place, (name, tensor) in enumerate(call.outputs.items()):
            while len(readers[tensor]) == 1 and tensor not in borders and readers[tensor][0].op_type in VIEWS:
                (view,) = readers[tensor]
                nodes.remove(view)
                tensor = view.output[0]
            node.output[place] = outputs[name] = tensor
        over = call.inputs.get("p", call.inputs["x"])
        is_free = len(readers[over]) == 1 and not borders & {over, node.output[0]}
        placed[node.output[0]] = replace(call, outputs=outputs, over=over if is_free else None)
    return placed
