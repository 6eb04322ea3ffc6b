"""The linear layers of a stage's ONNX graph: what int8 and fp8 quantise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, numpy_helper

from page4d.ops import DOMAIN

_OF_BLOCKS = re.compile(r"\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight/")
_VIEWS = ("Reshape", "Transpose")


@dataclass(frozen=True)
class Linear:
    """`product` and `add` make `x W + b` of x `[...,K]`, an initializer W `[K,N]` and another b `[N]`.

    Of transformer blocks alone: those are 99 % of the weights, and what stands around them (patches, heads) is
        sensitive.
    """

    product: NodeProto
    add: NodeProto

    @property
    def x(self) -> str:
        """The input's name."""
        return self.product.input[0]

    @property
    def weight(self) -> str:
        """The matrix's name; blocks that run twice in a stage share it."""
        return self.product.input[1]

    @property
    def kind(self) -> str:
        """`attn.qkv`, `attn.proj`, `mlp.fc1` or `mlp.fc2`."""
        found = _OF_BLOCKS.search(self.weight)
        assert found is not None
        return found[1]

    @property
    def bias(self) -> str:
        """The bias's name."""
        return self.add.input[1]


class Graph:
    """A stage's graph with its linear layers, in the order they run."""

    def __init__(self, graph: GraphProto) -> None:
        self.proto = graph
        self._producers = {name: node for node in graph.node for name in node.output}
        initializers = {tensor.name for tensor in graph.initializer}
        readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        self._readers = readers
        self.linears = tuple(self._find(initializers))

    def _find(self, initializers: set[str]) -> Iterator[Linear]:
        for node in self.proto.node:
            if node.op_type == "MatMul" and node.input[1] in initializers and _OF_BLOCKS.search(node.input[1]):
                (add,) = self._readers[node.output[0]]
                assert add.op_type == "Add" and add.input[0] == node.output[0] and add.input[1] in initializers
                yield Linear(node, add)

    def norm_before(self, linear: Linear) -> NodeProto | None:
        """The LayerNorm that makes a linear layer's input, where linear layers alone read it; in 16 bits a cast stands
        between."""
        products = [other.product for other in self.linears]
        if any(reader not in products for reader in self._readers[linear.x]):
            return None
        maker = self._producers.get(linear.x)
        if maker is not None and maker.op_type == "Cast" and len(self._readers[maker.input[0]]) == 1:
            maker = self._producers.get(maker.input[0])
        return maker if maker is not None and maker.op_type == "LayerNormalization" else None

    def values_before(self, linear: Linear) -> Linear | None:
        """The layer that makes v, where the linear layer's input is what attention made of it."""
        maker = self._behind_views(linear.x)
        if maker is None or maker.domain != DOMAIN:
            return None
        made = self._behind_views(maker.input[2])
        return next((other for other in self.linears if other.add is made), None)

    def _behind_views(self, name: str) -> NodeProto | None:
        while (
            (node := self._producers.get(name)) is not None and node.op_type in _VIEWS and len(self._readers[name]) == 1
        ):
            name = node.input[0]
        return node

    def replace_products(
        self, made: Callable[[int, Linear], list[NodeProto]], added: Mapping[str, NDArray[np.generic]]
    ) -> None:
        """Put other nodes in the place of every product, by a layer's number, and the constants that they read; unread
        ones go."""
        numbers = {linear.product.output[0]: number for number, linear in enumerate(self.linears)}
        nodes: list[NodeProto] = []
        for node in self.proto.node:
            number = numbers.get(node.output[0]) if node.output else None
            nodes.extend([node] if number is None else made(number, self.linears[number]))
        del self.proto.node[:]
        self.proto.node.extend(nodes)
        used = {name for node in self.proto.node for name in node.input}
        kept = [tensor for tensor in self.proto.initializer if tensor.name in used]
        del self.proto.initializer[:]
        self.proto.initializer.extend(kept)
        self.proto.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in added.items() if name in used
        )
