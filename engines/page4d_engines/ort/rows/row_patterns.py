"""The chains of operators between two matrix products that one call of a row kernel computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from page4d_engines.ort.onnx_graph import GraphIndex, Tensor, tensors_of
from page4d_plugins.launch_plan import Launch
from page4d_plugins.modes import Dtype
from page4d_plugins.row_launch import (
    RowKernel,
    gelu_launch,
    heads_launch,
    takes_gelu,
    takes_heads,
    takes_tokens,
    tokens_launch,
)

_DTYPES = {int(TensorProto.FLOAT16): Dtype.FLOAT16, int(TensorProto.BFLOAT16): Dtype.BFLOAT16}
_SWAPPED = [1, 0, 3, 2]  # quarters of a head, as the rotary embedding pairs them


@dataclass(frozen=True)
class RowCall:
    """One call of a row kernel.

    Attributes:
        kernel: which.
        launch: its sizes and parameters.
        dtype: of the tokens.
        inputs: the stage's tensors that it reads, weights included, by the launch's names.
        outputs: those that it writes, by the launch's names.
        over: the input whose memory the first output takes, since nobody reads it afterwards.
    """

    kernel: RowKernel
    launch: Launch
    dtype: Dtype
    inputs: dict[str, str]
    outputs: dict[str, str]
    over: str | None = None


@dataclass(frozen=True)
class Norm:
    """LayerNorm in float32 between two casts: source -> Cast -> LayerNormalization -> Cast (`result`)."""

    source: str
    node: NodeProto
    result: NodeProto


class _Linear(NamedTuple):
    """A product with its bias: `product [..,channels] -> Add <- bias [channels]`."""

    product: str
    bias: str
    channels: int


class PatternMatcher:
    """Finds the chains of a graph that row kernels compute; views (reshapes) may lie between any two operators.

    Attributes:
        index: of the graph's nodes.
    """

    def __init__(self, graph: GraphProto, nodes: list[NodeProto]) -> None:
        self._nodes = nodes
        self._tensors = tensors_of(graph)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.index = GraphIndex(nodes)

    def norms(self) -> Iterator[Norm]:
        """Every norm of tokens."""
        for node in self._nodes:
            if self._is_cast(node, widens=False) and (norm := self._layer_norm(node.input[0])) is not None:
                yield Norm(self._cast_before(norm), norm, node)

    def match_norm(self, norm: Norm) -> RowCall | None:
        """A norm alone.

        x -> Cast -> LayerNormalization (weight, shift) -> Cast -> out
        """
        tensor, dtype = self._tensors[norm.source], self._dtype(norm.source)
        rows, channels = tensor.size // tensor.shape[-1], tensor.shape[-1]
        if dtype is None or not takes_tokens(rows, channels):
            return None
        _, weight, shift = norm.node.input
        return RowCall(
            kernel=RowKernel.NORM,
            launch=tokens_launch(RowKernel.NORM, rows, channels, _epsilon(norm.node)),
            dtype=dtype,
            inputs={"x": self.index.behind_views(norm.source), "weight": weight, "shift": shift},
            outputs={"out": norm.result.output[0]},
        )

    def match_residual_add(self, node: NodeProto, norms: dict[str, Norm]) -> RowCall | None:
        """x + gamma (p + bias), with the norm that reads it, if there is one.

        p -> Add (bias) -> Mul (gamma) --+
        x -----------------------------> Add -> sum [-> Cast -> LayerNormalization -> Cast -> out]
        """
        if node.op_type != "Add" or (dtype := self._dtype(node.output[0])) is None:
            return None
        x, branch = node.input
        total, scaled = self._tensors[node.output[0]], self._producer(branch, "Mul")
        if scaled is None or any(self._tensors[name].shape != total.shape for name in (x, branch)):
            return None
        linear, gamma = self._linear(scaled.input[0]), scaled.input[1]
        if linear is None or not self._is_vector(gamma, linear.channels, wide=False):
            return None
        rows, channels = total.size // linear.channels, linear.channels
        if self._tensors[linear.product].size != total.size or not takes_tokens(rows, channels):
            return None
        behind = self.index.behind_views
        inputs = {"x": behind(x), "p": behind(linear.product), "bias": linear.bias, "gamma": gamma}
        outputs = {"sum": node.output[0]}
        norm = norms.get(node.output[0])
        if norm is None or self._tensors[norm.source].shape[-1] != channels:
            return RowCall(RowKernel.ADD, tokens_launch(RowKernel.ADD, rows, channels), dtype, inputs, outputs)
        _, weight, shift = norm.node.input
        return RowCall(
            kernel=RowKernel.ADD_NORM,
            launch=tokens_launch(RowKernel.ADD_NORM, rows, channels, _epsilon(norm.node)),
            dtype=dtype,
            inputs={**inputs, "weight": weight, "shift": shift},
            outputs={**outputs, "out": norm.result.output[0]},
        )

    def match_gelu(self, node: NodeProto) -> RowCall | None:
        """The exact GELU of a linear layer's output.

        p -> Add (bias) -> Gelu -> out
        """
        if node.op_type != "Gelu" or any(attribute.s not in (b"none", b"") for attribute in node.attribute):
            return None
        linear, dtype = self._linear(node.input[0]), self._dtype(node.output[0])
        if linear is None or dtype is None:
            return None
        rows = self._tensors[linear.product].size // linear.channels
        if not takes_gelu(rows, linear.channels):
            return None
        return RowCall(
            kernel=RowKernel.GELU,
            launch=gelu_launch(rows, linear.channels),
            dtype=dtype,
            inputs={"x": self.index.behind_views(linear.product), "bias": linear.bias},
            outputs={"out": node.output[0]},
        )

    def match_qk_norm_rope(self, node: NodeProto) -> RowCall | None:
        """Norm and rotary embedding of the heads of q or k; Gather swaps the quarters of a head.

        p -> Add (bias) -> Cast -> LayerNormalization -+----------> Mul (cos) -+
                                                       +-> Gather -> Mul (sin) -+-> Add -> Cast -> out
        """
        dtype = self._dtype(node.output[0]) if node.output else None
        if dtype is None or not self._is_cast(node, widens=False):
            return None
        total = self._producer(node.input[0], "Add")
        if total is None:
            return None
        straight, turned = (self._producer(name, "Mul") for name in total.input)
        if straight is None or turned is None:
            return None
        (heads, cos), (swapped, sin) = straight.input, turned.input
        norm, swap = self._layer_norm(heads), self._producer(swapped, "Gather")
        if norm is None or swap is None or not self._swaps_quarters(swap):
            return None
        linear = self._linear(self._cast_before(norm))
        if linear is None or self._layer_norm(swap.input[0]) is not norm:
            return None
        period, count, channels = self._tensors[heads].shape[-3:]
        table = Tensor((period, 1, channels), TensorProto.FLOAT)
        tokens = self._tensors[linear.product].size // linear.channels
        if self._tensors[cos] != table or self._tensors[sin] != table or linear.channels != count * channels:
            return None
        if not takes_heads(tokens, count, channels, period):
            return None
        _, weight, shift = norm.input
        behind = self.index.behind_views
        inputs = {"x": behind(linear.product), "bias": linear.bias, "weight": weight, "shift": shift}
        return RowCall(
            kernel=RowKernel.HEADS,
            launch=heads_launch(tokens, count, period, _epsilon(norm)),
            dtype=dtype,
            inputs={**inputs, "cos": behind(cos), "sin": behind(sin)},
            outputs={"out": node.output[0]},
        )

    # ---- parts of patterns

    def _producer(self, name: str, operator: str) -> NodeProto | None:
        """The node that makes a tensor, before views, if it is such an operator."""
        node = self._any_producer(name)
        return node if node is not None and node.op_type == operator else None

    def _any_producer(self, name: str) -> NodeProto | None:
        return self.index.producers.get(self.index.behind_views(name))

    def _dtype(self, name: str) -> Dtype | None:
        """Of a tensor of 16 bits."""
        return _DTYPES.get(self._tensors[name].dtype)

    def _is_cast(self, node: NodeProto | None, widens: bool) -> bool:
        """Whether it is a cast from 16 bits to float32, or back."""
        if node is None or node.op_type != "Cast":
            return False
        source, target = self._tensors[node.input[0]].dtype, self._tensors[node.output[0]].dtype
        narrow, wide = (source, target) if widens else (target, source)
        return narrow in _DTYPES and wide == TensorProto.FLOAT

    def _cast_before(self, norm: NodeProto) -> str:
        """What was cast for a norm."""
        return self.index.producers[self.index.behind_views(norm.input[0])].input[0]

    def _is_vector(self, name: str, channels: int, wide: bool) -> bool:
        """Whether it is a constant `[channels]`, of float32 or of 16 bits."""
        tensor = self._tensors[name]
        right_type = tensor.dtype == TensorProto.FLOAT if wide else tensor.dtype in _DTYPES
        return name in self._constants and tensor.shape == (channels,) and right_type

    def _linear(self, name: str) -> _Linear | None:
        node = self._producer(name, "Add")
        if node is None or self._producer(node.input[0], "MatMul") is None:
            return None
        product, bias = node.input
        channels = self._tensors[product].shape[-1]
        return _Linear(product, bias, channels) if self._is_vector(bias, channels, wide=False) else None

    def _layer_norm(self, name: str) -> NodeProto | None:
        """The LayerNorm over the last axis, of what was cast to float32, that makes a tensor."""
        node = self._producer(name, "LayerNormalization")
        if node is None or len(node.input) != 3 or _attribute(node, "axis", -1) != -1:
            return None
        channels = self._tensors[node.input[0]].shape[-1]
        is_plain = all(self._is_vector(constant, channels, wide=True) for constant in node.input[1:])
        return node if is_plain and self._is_cast(self._any_producer(node.input[0]), widens=True) else None

    def _swaps_quarters(self, node: NodeProto) -> bool:
        shape, index = self._tensors[node.input[0]].shape, self._constants.get(node.input[1])
        axis = _attribute(node, "axis", 0) % len(shape)
        is_quarters = axis == len(shape) - 2 and shape[axis] == 4
        return is_quarters and index is not None and numpy_helper.to_array(index).tolist() == _SWAPPED


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _epsilon(norm: NodeProto) -> float:
    return float(next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon"))
