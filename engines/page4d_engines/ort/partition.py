"""A stage's graph cut at this project's kernels: pieces of standard operators, and between them calls of attention and
row kernels.

What lies between two calls is any runtime's business. Pieces that differ in their weights and names alone become one
model, whose weights are inputs. Transposes around an attention go: the kernels read and write by strides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from page4d.ops import DOMAIN
from page4d_engines.ort.onnx_graph import Tensor, shed_views, tensors_of
from page4d_engines.ort.row_fusion import ROWS, RowCall
from page4d_engines.stage_files.external_data import is_external
from page4d_plugins.launch_plan import Shape, Strides
from page4d_plugins.modes import Dtype
from page4d_plugins.node import Node

_HEADS_APART = [0, 2, 1, 3]  # [Z,n,A,D] to [Z,A,n,D] and back
_HOST = {"Clip": (1, 2), "Pad": (1, 2, 3)}  # inputs that an operator reads on the host, beside whole numbers
_WHOLE_NUMBERS = (TensorProto.INT64, TensorProto.BOOL)
_ALIGNED = 256
_NAMES = {int(TensorProto.FLOAT16): "float16", int(TensorProto.BFLOAT16): "bfloat16"}


@dataclass(frozen=True)
class Subgraph:
    """A part without kernels of ours.

    Attributes:
        content: the model, serialized, its tensors named `i0..` and `o0..`; equal for pieces that differ in weights and
            names alone.
        inputs: the stage's tensors that it reads, as `i0..`, weights among them.
        outputs: those that it makes, as `o0..`.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Attention:
    """One call of the kernels: the op's inputs and its output as tensors of the stage."""

    shape: Shape
    inputs: dict[str, str]
    out: str

    @property
    def outputs(self) -> dict[str, str]:
        """As `RowCall.outputs`."""
        return {"out": self.out}


KernelCall = Attention | RowCall
"""What our kernels compute."""
Step = Subgraph | KernelCall


@dataclass(frozen=True)
class Partition:
    """A stage, ready to be run piece by piece.

    Attributes:
        steps: in order.
        tensors: everything that goes over a border, by the stage's names.
        weights: those of them that are constants.
    """

    steps: tuple[Step, ...]
    tensors: dict[str, Tensor]
    weights: dict[str, TensorProto]

    def memory_layout(
        self, outside: Iterable[str], workspace: dict[int, int]
    ) -> tuple[dict[str, int], dict[int, int], int]:
        """Where what is passed on lies in one block of memory: no two that are needed at once overlap.

        Args:
            outside: tensors that lie elsewhere: the stage's inputs and outputs.
            workspace: bytes that a step needs while it runs, by its number.

        Returns:
            Offsets of tensors by name, of workspaces by step, and the bytes of the block.
        """
        elsewhere = {*outside, *self.weights}
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        holder: dict[str, str] = {}  # of what is written over something, whose place that is
        for number, step in enumerate(self.steps):
            if isinstance(step, RowCall) and step.over is not None:
                holder[_made(step)[0]] = holder.get(step.over, step.over)
            first |= {name: number for name in _made(step) if name not in elsewhere and name not in holder}
            last |= {holder.get(name, name): number for name in (*_made(step), *_read(step)) if name not in elsewhere}
        wanted: list[tuple[int, int, int, str | int]] = [
            (first[name], last[name], self.tensors[name].bytes, name) for name in first
        ]
        wanted += [(number, number, size, number) for number, size in workspace.items() if size]
        taken: list[tuple[int, int, int, int]] = []
        found: dict[str | int, int] = {}
        for begin, end, size, name in sorted(
            wanted, key=lambda one: -one[2]
        ):  # large ones first, each as low as it fits
            at = 0
            for low, high, since, until in sorted(taken):
                if begin <= until and since <= end and at < high and low < at + size:
                    at = -(-high // _ALIGNED) * _ALIGNED
            taken.append((at, at + size, begin, end))
            found[name] = at
        total = max((high for _, high, _, _ in taken), default=0)
        found |= {name: found[place] for name, place in holder.items()}
        return (
            {k: v for k, v in found.items() if isinstance(k, str)},
            {k: v for k, v in found.items() if isinstance(k, int)},
            total,
        )


def partition(model: onnx.ModelProto, rows: Mapping[str, RowCall]) -> Partition:
    """Partition a stage's 16-bit graph, which is changed on the way.

    Args:
        model: with the shape of every tensor; large weights need not be loaded.
        rows: the calls whose markers it has, as `row_fusion.fuse_rows` gives them.

    Raises:
        UsageError: an attention that the kernels do not take.
    """
    graph = model.graph
    tensors = tensors_of(graph)
    attentions = _attentions(graph, tensors)
    level = {value.name: 0 for value in graph.input} | {tensor.name: 0 for tensor in graph.initializer}
    nodes: dict[int, list[NodeProto]] = defaultdict(list)
    calls: dict[int, list[KernelCall]] = defaultdict(list)
    for node in graph.node:
        at = max((level[name] for name in node.input if name), default=0)
        if node.domain in (DOMAIN, ROWS):
            call = attentions[node.output[0]] if node.domain == DOMAIN else rows[node.output[0]]
            calls[at].append(call)
            level |= dict.fromkeys(_made(call), at + 1)
        else:
            nodes[at].append(node)
            level |= dict.fromkeys(node.output, at)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    outputs = [value.name for value in graph.output]
    steps: list[Step] = []
    for at in range(max((*nodes, *calls), default=0) + 1):
        if nodes[at]:
            others = {name for other, rest in nodes.items() if other != at for node in rest for name in node.input}
            others |= {name for some in calls.values() for call in some for name in _read(call)} | set(outputs)
            steps.append(_subgraph(model, nodes[at], others, tensors, constants))
        steps += calls[at]
    names = dict.fromkeys(name for step in steps for name in (*_read(step), *_made(step)))
    return Partition(
        tuple(steps),
        {name: tensors[name] for name in names},
        {name: constants[name] for name in names if name in constants},
    )


def _read(step: Step) -> tuple[str, ...]:
    return step.inputs if isinstance(step, Subgraph) else tuple(step.inputs.values())


def _made(step: Step) -> tuple[str, ...]:
    return step.outputs if isinstance(step, Subgraph) else tuple(step.outputs.values())


def _attentions(graph: GraphProto, tensors: dict[str, Tensor]) -> dict[str, Attention]:
    """Every attention node by its output; transposes that the kernels' strides make needless are taken out of the
    graph."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    makers: dict[str, NodeProto] = {}
    for node in graph.node:
        makers |= dict.fromkeys(node.output, node)
        for name in node.input:
            readers[name].append(node)
    found: dict[str, Attention] = {}
    for node in [node for node in graph.node if node.domain == DOMAIN]:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        parsed = Node.of(node.op_type, attributes)
        given = dict(zip(parsed.inputs, node.input, strict=False))
        q = tensors[given["q"]]
        shape = parsed.shape(
            [tensors[name].shape for name in given.values()],
            Dtype.named(_NAMES.get(q.dtype, TensorProto.DataType.Name(q.dtype).lower())),
        )
        strides: dict[str, Strides] = {}
        for place, (name, tensor) in enumerate(list(given.items())[:3]):
            maker = makers.get(tensor)
            if maker is not None and _turns(maker) and len(readers[tensor]) == 1:
                graph.node.remove(maker)
                node.input[place] = given[name] = maker.input[0]
                strides[name] = _beside(shape.A, shape.n if name == "q" else shape.m, shape.D)
        made, out = node.output[0], node.output[0]
        if len(readers[out]) == 1 and _turns(readers[out][0]):
            graph.node.remove(readers[out][0])
            out = readers[out][0].output[0]
            strides["out"] = _beside(shape.A, shape.n, shape.D)
        shape = shape._replace(q=strides.get("q"), k=strides.get("k"), v=strides.get("v"), out=strides.get("out"))
        found[made] = Attention(shape, given, out)
    return found


def _turns(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and list(helper.get_attribute_value(node.attribute[0])) == _HEADS_APART


def _beside(A: int, n: int, D: int) -> Strides:
    """Of `[Z,n,A,D]`."""
    return Strides(n * A * D, D, A * D)


def _subgraph(
    model: onnx.ModelProto,
    nodes: list[NodeProto],
    read_elsewhere: set[str],
    tensors: dict[str, Tensor],
    constants: dict[str, TensorProto],
) -> Subgraph:
    host = {node.input[place] for node in nodes for place in _HOST.get(node.op_type, ()) if place < len(node.input)}
    inside = {
        name: tensor
        for name, tensor in constants.items()
        if (name in host or tensor.data_type in _WHOLE_NUMBERS) and not is_external(tensor)
    }
    made = dict.fromkeys(name for node in nodes for name in node.output)
    inputs = tuple(
        dict.fromkeys(name for node in nodes for name in node.input if name and name not in made and name not in inside)
    )
    outputs = tuple(name for name in made if name in read_elsewhere)
    called = {name: f"i{number}" for number, name in enumerate(inputs)} | {
        name: f"o{number}" for number, name in enumerate(outputs)
    }
    for number, name in enumerate(made):
        called.setdefault(name, f"v{number}")
    held: list[TensorProto] = []
    for node in nodes:
        for name in node.input:
            if name in inside and name not in called:
                called[name] = f"c{len(held)}"
                held.append(TensorProto())
                held[-1].CopyFrom(inside[name])
                held[-1].name = called[name]
    renamed = []
    for node in nodes:
        other = NodeProto()
        other.CopyFrom(node)
        other.ClearField("name")
        other.input[:] = [called[name] if name else "" for name in node.input]
        other.output[:] = [called[name] for name in node.output]
        renamed.append(other)
    given, results = (
        [helper.make_tensor_value_info(called[name], tensors[name].dtype, tensors[name].shape) for name in names]
        for names in (inputs, outputs)
    )
    imports = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    graph = helper.make_graph(renamed, "piece", given, results, held)
    shed_views(graph, {called[name]: tensors[name].shape for name in called if name in tensors})
    whole = helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    return Subgraph(whole.SerializeToString(deterministic=True), inputs, outputs)
