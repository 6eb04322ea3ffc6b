"""A 16-bit graph's passes over memory joined: what stands between two matrix products becomes one call of a row kernel.

ONNX Runtime computes a bias, a factor, a sum, a norm and each step of the rotary embedding one after the other, several
in float32. Where a graph has one of the chains that blocks are made of, a marker node of the domain `ROWS` takes its
place; all else stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from page4d_engines.ort.onnx_graph import VIEWS, Tensor, replace_nodes, tensors_of
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

ROWS = "page4d.rows"
"""Domain of the nodes that `fuse_rows` puts into a graph; the operator is the kernel's name, the first output names the
call."""
_DTYPES = {int(TensorProto.FLOAT16): Dtype.FLOAT16, int(TensorProto.BFLOAT16): Dtype.BFLOAT16}
_SWAPPED = [1, 0, 3, 2]  # quarters of a head, as the rotary embedding pairs them


@dataclass(frozen=True)
class RowCall:
    """One call of a row kernel.

    Attributes:
        kernel: which.
        launch: sizes and numbers.
        dtype: of the tokens.
        inputs: the stage's tensors by the launch's names, weights among them.
        outputs: those that it makes.
        over: the input whose memory the first output takes, which nobody reads afterwards.
    """

    kernel: RowKernel
    launch: Launch
    dtype: Dtype
    inputs: dict[str, str]
    outputs: dict[str, str]
    over: str | None = None


def fuse_rows(graph: GraphProto) -> dict[str, RowCall]:
    """Put calls in the place of what they compute, in place; the calls by their marker's first output.

    Args:
        graph: with the shape of every tensor; large weights need not be loaded.
    """
    before = list(graph.node)
    known = PatternMatcher(graph, before)
    norms = {known.back(norm.source): norm for norm in known.norms()}
    calls: dict[int, RowCall] = {}  # by the id of the node whose place it takes
    for node in before:
        call = known.match_residual_add(node, norms) or known.match_gelu(node) or known.match_qk_norm_rope(node)
        if call is not None:
            calls[id(node)] = call
    added = {name for call in calls.values() for name in call.outputs.values()}
    for norm in norms.values():
        if norm.out.output[0] not in added and (call := known.match_norm(norm)) is not None:
            calls[id(norm.out)] = call
    taken = {id(norm.out) for norm in norms.values() if norm.out.output[0] in added}
    nodes = [_marker(calls[id(node)]) if id(node) in calls else node for node in before if id(node) not in taken]
    nodes = _live(nodes, {value.name for value in graph.output})
    found = _to_the_end(nodes, {next(iter(call.outputs.values())): call for call in calls.values()}, graph)
    replace_nodes(graph, nodes)
    return found


@dataclass(frozen=True)
class _Norm:
    """LayerNorm in float32 between two casts."""

    source: str
    node: NodeProto
    out: NodeProto
    """The second cast."""


class PatternMatcher:
    """A graph, and the chains that are found in it."""

    def __init__(self, graph: GraphProto, nodes: list[NodeProto]) -> None:
        self._nodes = nodes
        self._tensors = tensors_of(graph)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in nodes for name in node.output}

    def back(self, name: str) -> str:
        """The tensor whose memory it is, before views."""
        while (maker := self._makers.get(name)) is not None and maker.op_type in VIEWS:
            name = maker.input[0]
        return name

    def _made(self, name: str, operator: str) -> NodeProto | None:
        maker = self._makers.get(self.back(name))
        return maker if maker is not None and maker.op_type == operator else None

    def _cast(self, node: NodeProto | None, wide: bool) -> bool:
        """Whether it is a cast between 16 bits and float32."""
        if node is None or node.op_type != "Cast":
            return False
        given, made = self._tensors[node.input[0]].dtype, self._tensors[node.output[0]].dtype
        return (
            (given in _DTYPES and made == TensorProto.FLOAT)
            if wide
            else (given == TensorProto.FLOAT and made in _DTYPES)
        )

    def _vector(self, name: str, channels: int, wide: bool) -> bool:
        """Whether it is a constant `[channels]`, of float32 or of 16 bits."""
        tensor = self._tensors[name]
        return (
            name in self._constants
            and tensor.shape == (channels,)
            and (tensor.dtype == TensorProto.FLOAT if wide else tensor.dtype in _DTYPES)
        )

    def _linear(self, name: str) -> tuple[str, str, int] | None:
        """Product, bias and channels, where it is their sum."""
        node = self._made(name, "Add")
        if node is None or self._made(node.input[0], "MatMul") is None:
            return None
        channels = self._tensors[node.input[0]].shape[-1]
        return (node.input[0], node.input[1], channels) if self._vector(node.input[1], channels, wide=False) else None

    def _dtype(self, name: str) -> Dtype | None:
        return _DTYPES.get(self._tensors[name].dtype)

    def _normed(self, name: str) -> NodeProto | None:
        """The LayerNorm of the last axis, of what was cast to float32, where it makes the tensor."""
        node = self._made(name, "LayerNormalization")
        if (
            node is None
            or len(node.input) != 3
            or not self._cast(self._makers.get(self.back(node.input[0])), wide=True)
        ):
            return None
        channels = self._tensors[node.input[0]].shape[-1]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        return node if axis == -1 and all(self._vector(each, channels, wide=True) for each in node.input[1:]) else None

    def norms(self) -> Iterator[_Norm]:
        """Every norm of tokens."""
        for node in self._nodes:
            if self._cast(node, wide=False) and (norm := self._normed(node.input[0])) is not None:
                yield _Norm(self._makers[self.back(norm.input[0])].input[0], norm, node)

    def match_norm(self, norm: _Norm) -> RowCall | None:
        """The call of a norm alone."""
        tensor, dtype = self._tensors[norm.source], self._dtype(norm.source)
        rows, channels = tensor.size // tensor.shape[-1], tensor.shape[-1]
        if dtype is None or not takes_tokens(rows, channels):
            return None
        inputs = {"x": self.back(norm.source), "weight": norm.node.input[1], "shift": norm.node.input[2]}
        launch = tokens_launch(RowKernel.NORM, rows, channels, _epsilon(norm.node))
        return RowCall(RowKernel.NORM, launch, dtype, inputs, {"out": norm.out.output[0]})

    def match_residual_add(self, node: NodeProto, norms: dict[str, _Norm]) -> RowCall | None:
        """x + gamma (p + bias), with the norm that reads it, if there is one."""
        if node.op_type != "Add" or (dtype := self._dtype(node.output[0])) is None:
            return None
        tensor, scaled = self._tensors[node.output[0]], self._made(node.input[1], "Mul")
        if (
            scaled is None
            or self._tensors[node.input[0]].shape != tensor.shape
            or self._tensors[node.input[1]].shape != tensor.shape
        ):
            return None
        linear = self._linear(scaled.input[0])
        if linear is None or not self._vector(scaled.input[1], linear[2], wide=False):
            return None
        p, bias, channels = linear
        rows = tensor.size // channels
        if self._tensors[p].size != tensor.size or not takes_tokens(rows, channels):
            return None
        inputs = {"x": self.back(node.input[0]), "p": self.back(p), "bias": bias, "gamma": scaled.input[1]}
        outputs = {"sum": node.output[0]}
        norm = norms.get(node.output[0])
        if norm is None or self._tensors[norm.source].shape[-1] != channels:
            return RowCall(RowKernel.ADD, tokens_launch(RowKernel.ADD, rows, channels), dtype, inputs, outputs)
        inputs |= {"weight": norm.node.input[1], "shift": norm.node.input[2]}
        outputs |= {"out": norm.out.output[0]}
        return RowCall(
            RowKernel.ADD_NORM,
            tokens_launch(RowKernel.ADD_NORM, rows, channels, _epsilon(norm.node)),
            dtype,
            inputs,
            outputs,
        )

    def match_gelu(self, node: NodeProto) -> RowCall | None:
        """GELU of a linear layer's output."""
        if node.op_type != "Gelu" or any(attribute.s not in (b"none", b"") for attribute in node.attribute):
            return None
        linear, dtype = self._linear(node.input[0]), self._dtype(node.output[0])
        if linear is None or dtype is None:
            return None
        p, bias, channels = linear
        rows = self._tensors[p].size // channels
        if not takes_gelu(rows, channels):
            return None
        return RowCall(
            RowKernel.GELU,
            gelu_launch(rows, channels),
            dtype,
            {"x": self.back(p), "bias": bias},
            {"out": node.output[0]},
        )

    def match_qk_norm_rope(self, node: NodeProto) -> RowCall | None:
        """Norm and rotary embedding of the heads of q or k."""
        dtype = self._dtype(node.output[0]) if node.output else None
        total = self._made(node.input[0], "Add") if dtype is not None and self._cast(node, wide=False) else None
        if dtype is None or total is None:
            return None
        straight, turned = (self._made(name, "Mul") for name in total.input)
        if straight is None or turned is None:
            return None
        norm, swapped = self._normed(straight.input[0]), self._made(turned.input[0], "Gather")
        if norm is None or swapped is None or not self._swaps(swapped) or self._normed(swapped.input[0]) is not norm:
            return None
        linear = self._linear(self._makers[self.back(norm.input[0])].input[0])
        places = self._tensors[straight.input[0]].shape  # [.., period, heads, channels]
        tables = [self._tensors[one.input[1]] for one in (straight, turned)]
        if linear is None or any(table != Tensor((places[-3], 1, places[-1]), TensorProto.FLOAT) for table in tables):
            return None
        p, bias, width = linear
        period, heads, channels = places[-3:]
        tokens = self._tensors[p].size // width
        if width != heads * channels or not takes_heads(tokens, heads, channels, period):
            return None
        inputs = {"x": self.back(p), "bias": bias, "weight": norm.input[1], "shift": norm.input[2]}
        inputs |= {"cos": self.back(straight.input[1]), "sin": self.back(turned.input[1])}
        launch = heads_launch(tokens, heads, period, _epsilon(norm))
        return RowCall(RowKernel.HEADS, launch, dtype, inputs, {"out": node.output[0]})

    def _swaps(self, node: NodeProto) -> bool:
        """Whether it swaps the quarters of a head."""
        shape, index = self._tensors[node.input[0]].shape, self._constants.get(node.input[1])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0) % len(shape)
        return (
            index is not None
            and axis == len(shape) - 2
            and shape[axis] == 4
            and numpy_helper.to_array(index).tolist() == _SWAPPED
        )


def _epsilon(norm: NodeProto) -> float:
    return float(next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon"))


def _marker(call: RowCall) -> NodeProto:
    return helper.make_node(call.kernel.value, list(call.inputs.values()), list(call.outputs.values()), domain=ROWS)


def _live(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Without those whose results nobody reads."""
    needed, found = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            found.append(node)
            needed.update(node.input)
    return found[::-1]


def _to_the_end(nodes: list[NodeProto], calls: dict[str, RowCall], graph: GraphProto) -> dict[str, RowCall]:
    """Let calls write where the views of their results lead, and over what nobody reads afterwards; changes the list
    and its nodes."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            readers[name].append(node)
    borders = {value.name for value in (*graph.input, *graph.output)} | {tensor.name for tensor in graph.initializer}
    found = {}
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
        free = len(readers[over]) == 1 and not borders & {over, node.output[0]}
        found[node.output[0]] = replace(call, outputs=outputs, over=over if free else None)
    return found
