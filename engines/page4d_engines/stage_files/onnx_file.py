"""What the checks of an ONNX file look at: operators, constants and where they lie, loops, inputs and outputs.

Read without the package `onnx`, so that a machine that runs engines does without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from page4d_engines.stage_files.protobuf_fields import DamagedError, Kinds, Message, Span

MESSAGES: dict[str, Kinds] = {
    "ModelProto": dict(zip((1, 8, 2, 3, 4, 5, 6, 7, 14, 20, 25, 26), "nMmmmnmmMMMM", strict=True)),
    "GraphProto": dict(zip((1, 2, 5, 15, 10, 11, 12, 13, 14, 16), "MmMMmMMMMM", strict=True)),
    "FunctionProto": dict(zip((1, 4, 5, 6, 11, 7, 8, 9, 10, 13, 12, 14), "mMMMMMmMmmMM", strict=True)),
    "NodeProto": dict(zip((1, 2, 3, 4, 7, 8, 5, 6, 9, 10), "MMmmmmMmMM", strict=True)),
    "AttributeProto": dict(
        zip(
            (1, 21, 13, 20, 2, 3, 4, 5, 6, 22, 14, 7, 8, 9, 10, 11, 23, 15),
            "mmmnfnmmmmmFNMMMMM",
            strict=True,
        )
    ),
    "TensorProto": dict(
        zip((1, 2, 3, 4, 5, 6, 7, 8, 12, 9, 13, 14, 10, 11, 16), "NnmFNMNmmmMnDNM", strict=True),
    ),
    "SparseTensorProto": dict(zip((1, 2, 3), "mmN", strict=True)),
    "ValueInfoProto": dict(zip((1, 2, 3, 4), "mmmM", strict=True)),
    "TypeProto": dict(zip((1, 4, 5, 9, 8, 7, 6), "mmmmmmm", strict=True)),
    "TypeProto.Tensor": dict(zip((1, 2), "nm", strict=True)),
    "TensorShapeProto": dict(zip((1,), "M", strict=True)),
    "TensorShapeProto.Dimension": dict(zip((1, 2, 3), "nmm", strict=True)),
    "StringStringEntryProto": dict(zip((1, 2), "mm", strict=True)),
}
"""The fields that ONNX's messages have, by their numbers, as `Kinds` writes them."""

_DEEPEST = 8  # graphs inside graphs
_EXTERNAL = 1  # of TensorProto.DataLocation
_INT = 2  # of AttributeProto.AttributeType
_NO_TENSORS = (4, 5, 7, 8, 9)  # fields of TypeProto


@dataclass(frozen=True)
class Tensor:
    """A constant without its values."""

    name: str
    dtype: int
    """As ONNX numbers types."""
    dims: tuple[int, ...]
    place: tuple[tuple[str, str], ...] | None
    """Keys and values that say where in another file it lies; None: it lies in this one."""


@dataclass(frozen=True)
class Value:
    """An input or output."""

    name: str
    dtype: int
    """As ONNX numbers types; 0: no tensor."""
    shape: tuple[int, ...]
    """-1: a size that is not fixed."""


@dataclass(frozen=True)
class Attribute:
    """What the checks look at of an attribute."""

    name: str
    integer: int | None
    """The integer that it is; None: it is something else, or a function's caller gives it."""
    tensors: tuple[Tensor, ...]
    graphs: tuple[Graph, ...]


@dataclass(frozen=True)
class Node:
    """One operator."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[Attribute, ...]

    @property
    def graphs(self) -> list[Graph]:
        """Those inside."""
        return [graph for attribute in self.attributes for graph in attribute.graphs]


@dataclass(frozen=True)
class Graph:
    """The file's graph, or one inside a node."""

    nodes: tuple[Node, ...]
    initializers: tuple[Tensor, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    has_sparse: bool
    """Whether it has sparse initializers."""

    @property
    def source_names(self) -> list[str]:
        """Names of values that no node makes."""
        return [value.name for value in self.inputs] + [tensor.name for tensor in self.initializers]


@dataclass(frozen=True)
class Function:
    """A function of the file, whose nodes take a node's place."""

    name: str
    domain: str
    inputs: tuple[str, ...]
    """Their names."""
    nodes: tuple[Node, ...]
    defaults: tuple[Attribute, ...]


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file."""

    graph: Graph
    functions: tuple[Function, ...]
    has_training: bool
    """Whether it has parts for training."""

    @classmethod
    def parse(cls, content: bytes) -> OnnxFile:
        """Of the bytes of a file.

        Raises:
            DamagedError: they are no ONNX file.
        """
        model = Message(content, (0, len(content)), MESSAGES["ModelProto"])
        if not model.has(7):
            raise DamagedError("no graph")
        (graph,) = model.spans(7)
        reader = _Reader(content)
        return cls(reader.graph(graph, 0), tuple(map(reader.function, model.spans(25))), model.has(20))

    @property
    def graphs(self) -> Iterator[Graph]:
        """All, those inside nodes, too."""
        rest = [self.graph, *(graph for function in self.functions for graph in _inside(function))]
        while rest:
            graph = rest.pop()
            yield graph
            rest.extend(inner for node in graph.nodes for inner in node.graphs)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """All constants, those of attributes, too."""
        attributes = [attribute for function in self.functions for attribute in _attributes(function)]
        for graph in self.graphs:
            yield from graph.initializers
            attributes += (attribute for node in graph.nodes for attribute in node.attributes)
        for attribute in attributes:
            yield from attribute.tensors


def _attributes(function: Function) -> list[Attribute]:
    return [*function.defaults, *(attribute for node in function.nodes for attribute in node.attributes)]


def _inside(function: Function) -> list[Graph]:
    return [graph for attribute in _attributes(function) for graph in attribute.graphs]


class _Reader:
    """Messages of a file's content by where they are."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def _message(self, span: Span, name: str) -> Message:
        return Message(self._content, span, MESSAGES[name])

    def graph(self, span: Span, depth: int) -> Graph:
        if depth > _DEEPEST:
            raise DamagedError("graphs inside graphs, too deep")
        message = self._message(span, "GraphProto")
        return Graph(
            nodes=tuple(self._node(node, depth) for node in message.spans(1)),
            initializers=tuple(map(self._tensor, message.spans(5))),
            inputs=tuple(map(self._value, message.spans(11))),
            outputs=tuple(map(self._value, message.spans(12))),
            has_sparse=message.has(15),
        )

    def function(self, span: Span) -> Function:
        message = self._message(span, "FunctionProto")
        return Function(
            name=message.text(1),
            domain=message.text(10),
            inputs=tuple(message.texts(4)),
            nodes=tuple(self._node(node, 0) for node in message.spans(7)),
            defaults=tuple(self._attribute(attribute, 0) for attribute in message.spans(11)),
        )

    def _node(self, span: Span, depth: int) -> Node:
        message = self._message(span, "NodeProto")
        return Node(
            op_type=message.text(4),
            domain=message.text(7),
            inputs=tuple(message.texts(1)),
            outputs=tuple(message.texts(2)),
            attributes=tuple(self._attribute(attribute, depth) for attribute in message.spans(5)),
        )

    def _attribute(self, span: Span, depth: int) -> Attribute:
        message = self._message(span, "AttributeProto")
        tensors = [*message.spans(5), *message.spans(10)]
        for sparse in (*message.spans(22), *message.spans(23)):
            parts = self._message(sparse, "SparseTensorProto")
            tensors += (*parts.spans(1), *parts.spans(2))
        graphs = (*message.spans(6), *message.spans(11))
        is_integer = message.number(20) == _INT and message.has(3) and not message.has(21)
        return Attribute(
            name=message.text(1),
            integer=message.number(3) if is_integer else None,
            tensors=tuple(map(self._tensor, tensors)),
            graphs=tuple(self.graph(graph, depth + 1) for graph in graphs),
        )

    def _tensor(self, span: Span) -> Tensor:
        message = self._message(span, "TensorProto")
        location = message.number(14)
        if location not in (0, _EXTERNAL):
            raise DamagedError(f"a tensor in location {location}")
        entries = [self._message(entry, "StringStringEntryProto") for entry in message.spans(13)]
        place = tuple((entry.text(1), entry.text(2)) for entry in entries) if location == _EXTERNAL else None
        return Tensor(message.text(8), message.number(2), tuple(message.numbers(1)), place)

    def _value(self, span: Span) -> Value:
        message = self._message(span, "ValueInfoProto")
        dtype, shape = 0, []
        for value_type in message.spans(2):
            kinds = self._message(value_type, "TypeProto")
            if any(map(kinds.has, _NO_TENSORS)):
                continue
            for tensor in kinds.spans(1):
                parts = self._message(tensor, "TypeProto.Tensor")
                dtype = parts.number(1)
                for sides in parts.spans(2):
                    spans = self._message(sides, "TensorShapeProto").spans(1)
                    shape = [self._side(side) for side in spans]
        return Value(message.text(1), dtype, tuple(shape))

    def _side(self, span: Span) -> int:
        message = self._message(span, "TensorShapeProto.Dimension")
        return message.number(1) if message.has(1) and not message.has(2) and message.number(1) >= 0 else -1
