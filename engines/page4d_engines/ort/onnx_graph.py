"""What rewriting a graph takes: its tensors by name, who makes and reads them, views at its ends.

Graphs stay protobuf messages: they are rewritten whenever a folder is loaded, and converting them to onnx_ir and back
would take a third longer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto, helper

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity"})
"""Operators that leave memory as it is."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of a graph."""

    shape: tuple[int, ...]
    dtype: int
    """As `onnx.TensorProto` numbers it."""

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.size * helper.tensor_dtype_to_np_dtype(self.dtype).itemsize


class GraphIndex:
    """Who makes and who reads each tensor of some nodes.

    Attributes:
        producers: the node that makes a tensor, by its name; graph inputs and constants have none.
        readers: the nodes that read it, one entry for each input.
    """

    def __init__(self, nodes: Iterable[NodeProto]) -> None:
        self.producers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in nodes:
            self.producers |= dict.fromkeys(node.output, node)
            for name in node.input:
                self.readers[name].append(node)

    def behind_views(self, name: str) -> str:
        """The tensor that a chain of views begins with: it lies in the same memory."""
        while (producer := self.producers.get(name)) is not None and producer.op_type in VIEWS:
            name = producer.input[0]
        return name


def tensors_of(graph: GraphProto) -> dict[str, Tensor]:
    """Every tensor whose shape a graph states, weights included, by name."""
    values = [*graph.input, *graph.output, *graph.value_info]
    tensors = {
        value.name: Tensor(
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim), value.type.tensor_type.elem_type
        )
        for value in values
    }
    return tensors | {tensor.name: Tensor(tuple(tensor.dims), tensor.data_type) for tensor in graph.initializer}


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Give a graph other nodes, which may include its own."""
    copies = []  # clearing the list frees its nodes
    for node in nodes:
        copies.append(NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)


def drop_unread(graph: GraphProto) -> None:
    """Remove constants that nothing reads."""
    read = {value.name for value in graph.output} | set(_names_read(graph))
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _names_read(graph: GraphProto) -> Iterator[str]:
    """What nodes read, and the graphs inside them, which see the names around them."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from (value.name for value in attribute.g.output)
                yield from _names_read(attribute.g)


def shed_views(graph: GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Remove a graph's first and last reshapes: inputs and outputs take the inner shape.

    ONNX Runtime would copy whole tensors for them. The values lie in memory as before, so whoever binds a buffer need
    not know.
    """
    borders = {value.name for value in (*graph.input, *graph.output)}
    for value in graph.input:
        while len(readers := [node for node in graph.node if value.name in node.input]) == 1:
            (node,) = readers
            inner = node.output[0]
            if node.op_type not in VIEWS or inner in borders:
                break
            graph.node.remove(node)
            for other in graph.node:
                other.input[:] = [value.name if name == inner else name for name in other.input]
            _reshape(value, shapes[inner])
    for value in graph.output:
        while True:
            (node,) = (node for node in graph.node if value.name in node.output)
            inner = node.input[0] if node.input else ""
            makers = [other for other in graph.node if inner in other.output]
            reads = sum(name in (inner, value.name) for other in graph.node for name in other.input)
            # a tensor that others read, too, keeps its name
            if node.op_type not in VIEWS or not makers or reads != 1 or inner in borders:
                break
            graph.node.remove(node)
            makers[0].output[:] = [value.name if name == inner else name for name in makers[0].output]
            _reshape(value, shapes[inner])


def _reshape(value: ValueInfoProto, shape: tuple[int, ...]) -> None:
    dimensions = value.type.tensor_type.shape.dim
    if math.prod(shape) != math.prod(size.dim_value for size in dimensions):  # whoever binds memory goes by the size
        raise ValueError(f"{value.name} is reshaped to another size: {list(shape)}")
    del dimensions[:]
    for size in shape:
        dimensions.add(dim_value=size)
