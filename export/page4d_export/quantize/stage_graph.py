"""The linear layers and attentions of a stage's ONNX graph: what int8 and fp8 quantize."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from page4d.ops import DOMAIN

Floats = NDArray[np.float64]
_QUANTIZED = re.compile(r"\.(attn\.(?:qkv|proj)|mlp\.fc[12]|projects(?=\.\d))(?:\.\d)?\.weight/")
_VIEWS = ("Reshape", "Transpose")


@dataclass(frozen=True)
class Linear:
    """`product` and `add` compute `x W + b` of x `[...,K]`, an initializer W `[K,N]` and another b `[N]`.

    Of transformer blocks, and from tokens to the maps of VGGT's depth and points heads: those are 99 % of the linear
    layers' weights, and the others (patches, the ends of heads) are sensitive.
    """

    product: ir.Node
    add: ir.Node

    @property
    def input(self) -> ir.Value:
        """x."""
        return input_of(self.product, 0)

    @property
    def matrix(self) -> ir.Value:
        """W; blocks that run twice in a stage share it."""
        return input_of(self.product, 1)

    @property
    def bias(self) -> ir.Value:
        """b."""
        return input_of(self.add, 1)

    @property
    def x(self) -> str:
        """The input's name."""
        return name_of(self.input)

    @property
    def weight(self) -> str:
        """The matrix's name."""
        return name_of(self.matrix)

    @property
    def out(self) -> str:
        """The product's name."""
        return name_of(self.product.outputs[0])

    @property
    def exact(self) -> Floats:
        """The matrix `[K,N]`."""
        return array_of(self.matrix).astype(np.float64)

    @property
    def size(self) -> int:
        """Weights: multiplications of a token."""
        return math.prod(shape_of(self.matrix))

    @property
    def kind(self) -> str:
        """`attn.qkv`, `attn.proj`, `mlp.fc1`, `mlp.fc2`, or `projects`."""
        match = _QUANTIZED.search(self.weight)
        assert match is not None
        return match[1]


@dataclass(frozen=True)
class Attention:
    """A node that multiplies queries `[Z,A,n,D]` by keys `[Z,A,m,D]`, and what follows from the products by values."""

    node: ir.Node
    kind = "attention"

    @property
    def queries_and_keys(self) -> tuple[ir.Value, ir.Value]:
        """Both factors."""
        return input_of(self.node, 0), input_of(self.node, 1)

    @property
    def out(self) -> str:
        """The output's name."""
        return name_of(self.node.outputs[0])

    @property
    def size(self) -> int:
        """Multiplications of a query of all heads: as of a matrix of that size."""
        _, A, m, D = shape_of(self.queries_and_keys[1])
        return A * m * D


class Graph:
    """A stage's graph with its linear layers and attentions, in the order they run."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        self.linears = tuple(self._find())
        self.attentions = tuple(Attention(node) for node in self._graph if node.domain == DOMAIN)

    @property
    def weights(self) -> dict[str, Floats]:
        """Matrices `[K,N]` of the linear layers, by name."""
        layers = {linear.weight: linear for linear in self.linears}
        return {name: linear.exact for name, linear in layers.items()}

    def _find(self) -> Iterator[Linear]:
        for product in self._graph:
            if product.op_type == "MatMul" and _QUANTIZED.search(name_of(input_of(product, 1))):
                (add,) = product.outputs[0].consumers()
                assert add.op_type == "Add" and add.inputs[0] is product.outputs[0]
                yield Linear(product, add)

    def norm_before(self, linear: Linear) -> ir.Node | None:
        """The LayerNorm that computes a layer's input, in 16 bits through a cast; None if other nodes read it, too."""
        products = [other.product for other in self.linears]
        if any(reader not in products for reader in linear.input.consumers()):
            return None
        producer = linear.input.producer()
        if producer is not None and producer.op_type == "Cast" and len(input_of(producer, 0).uses()) == 1:
            producer = input_of(producer, 0).producer()
        return producer if producer is not None and producer.op_type == "LayerNormalization" else None

    def values_before(self, linear: Linear) -> Linear | None:
        """The layer that computes v, where the linear layer's input is attention's output."""
        attention = _behind_views(linear.input)
        if attention is None or attention.domain != DOMAIN:
            return None
        add = _behind_views(input_of(attention, 2))
        return next((other for other in self.linears if other.add is add), None)

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """A new initializer."""
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.register_initializer(value)
        return value

    def insert_before(self, place: ir.Node, nodes: Sequence[ir.Node]) -> None:
        """Put nodes before one of the graph's."""
        self._graph.insert_before(place, nodes)

    def replace(self, product: ir.Node, nodes: Sequence[ir.Node]) -> None:
        """Put nodes in a product's place; the output of the last has the product's name and readers."""
        ir.convenience.replace_nodes_and_values(
            self._graph, product, [product], nodes, product.outputs, nodes[-1].outputs
        )


def node(op: str, inputs: Sequence[ir.Value], *outputs: str, name: str | None = None, **attributes: int) -> ir.Node:
    """A node that stands in no graph yet, its outputs named."""
    return ir.node(op, inputs, attributes, outputs=[ir.Value(name=output) for output in outputs], name=name)


def input_of(node: ir.Node, index: int) -> ir.Value:
    """An input that is there."""
    value = node.inputs[index]
    assert value is not None
    return value


def name_of(value: ir.Value) -> str:
    """A value's name, which all of an exported graph have."""
    assert value.name is not None
    return value.name


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """A value's shape, which is fixed in all of an exported graph."""
    assert value.shape is not None
    return value.shape.numpy()


def array_of(value: ir.Value) -> NDArray[np.generic]:
    """The array of an initializer."""
    assert value.const_value is not None
    return value.const_value.numpy()


def _behind_views(value: ir.Value) -> ir.Node | None:
    """The node that computes a value; reshapes and transposes that nothing else reads are skipped."""
    while (producer := value.producer()) is not None and producer.op_type in _VIEWS and len(value.uses()) == 1:
        value = input_of(producer, 0)
    return producer
