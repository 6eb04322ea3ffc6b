"""A stage's graph cut at this project's kernels: pieces of standard operators, and calls of kernels between them.

Any runtime can run the pieces. Those that differ in their weights and names alone become one model, whose weights are
inputs. Transposes around an attention are removed: the kernels read and write by strides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper

from page4d.ops import DOMAIN
from page4d_engines.ort.memory_layout import Interval, MemoryLayout, plan_memory
from page4d_engines.ort.onnx_graph import GraphIndex, Tensor, shed_views, tensors_of
from page4d_engines.ort.rows.row_fusion import ROWS, RowCall
from page4d_engines.stage_files.external_data import is_external
from page4d_plugins.launch_plan import Shape, Strides
from page4d_plugins.modes import Dtype
from page4d_plugins.node import Node

_HEADS_APART = [0, 2, 1, 3]  # [Z,n,A,D] to [Z,A,n,D] and back
_HOST = {"Clip": (1, 2), "Pad": (1, 2, 3)}  # inputs that an operator reads on the host, beside those of `_HOST_TYPES`
_HOST_TYPES = (TensorProto.INT64, TensorProto.BOOL)
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
        tensors: those that steps read or write, by the stage's names.
        weights: those of them that are constants.
    """

    steps: tuple[Step, ...]
    tensors: dict[str, Tensor]
    weights: dict[str, TensorProto]

    def memory_layout(self, outside: Iterable[str], workspace: Mapping[int, int]) -> MemoryLayout:
        """Places in one block of memory for the tensors between steps: no two that are needed at once overlap.

        Args:
            outside: tensors that lie elsewhere: the stage's inputs and outputs.
            workspace: bytes that a step needs while it runs, by its number.
        """
        elsewhere = {*outside, *self.weights}
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        owner: dict[str, str] = {}  # of a tensor that is written over another one, the first of them
        for number, step in enumerate(self.steps):
            inputs, outputs = _inputs(step), _outputs(step)
            if isinstance(step, RowCall) and step.over is not None:
                owner[outputs[0]] = owner.get(step.over, step.over)
            first |= {name: number for name in outputs if name not in elsewhere and name not in owner}
            last |= {owner.get(name, name): number for name in (*outputs, *inputs) if name not in elsewhere}
        tensors = [Interval(first[name], last[name], self.tensors[name].bytes) for name in first]
        used = {number: size for number, size in workspace.items() if size}
        places, size = plan_memory([*tensors, *(Interval(number, number, size) for number, size in used.items())])
        offsets = dict(zip(first, places, strict=False))
        offsets |= {name: offsets[first_name] for name, first_name in owner.items()}
        return MemoryLayout(offsets, dict(zip(used, places[len(first) :], strict=True)), size)


def partition(model: onnx.ModelProto, rows: Mapping[str, RowCall]) -> Partition:
    """Partition a stage's 16-bit graph; the model is changed.

    Args:
        model: with the shape of every tensor; large weights need not be loaded.
        rows: the calls whose markers it has, as `row_fusion.fuse_rows` gives them.

    Raises:
        UsageError: the kernels do not take an attention.
    """
    graph = model.graph
    tensors = tensors_of(graph)
    attentions = _attentions(graph, tensors)
    level = {value.name: 0 for value in graph.input} | {tensor.name: 0 for tensor in graph.initializer}
    nodes: dict[int, list[NodeProto]] = defaultdict(list)
    calls: dict[int, list[KernelCall]] = defaultdict(list)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    read_at: dict[str, int] = {}  # the first step that reads a tensor
    of_constants: list[NodeProto] = []
    for node in graph.node:
        at = max((level[name] for name in node.input if name), default=0)
        if node.domain in (DOMAIN, ROWS):
            call = attentions[node.output[0]] if node.domain == DOMAIN else rows[node.output[0]]
            calls[at].append(call)
            level |= dict.fromkeys(_outputs(call), at + 1)
        elif constants.keys() >= set(node.input):
            of_constants.append(node)
            level |= dict.fromkeys(node.output, 0)
            continue
        else:
            nodes[at].append(node)
            level |= dict.fromkeys(node.output, at)
        for name in node.input:
            read_at[name] = min(at, read_at.get(name, at))
    for node in reversed(of_constants):  # where they are read, so that no weight is held twice in between
        nodes[min((read_at[name] for name in node.output if name in read_at), default=0)].insert(0, node)
    outputs = [value.name for value in graph.output]
    steps: list[Step] = []
    for at in range(max((*nodes, *calls), default=0) + 1):
        if nodes[at]:
            others = {name for other, rest in nodes.items() if other != at for node in rest for name in node.input}
            others |= {name for some in calls.values() for call in some for name in _inputs(call)} | set(outputs)
            steps.append(_subgraph(model, nodes[at], others, tensors, constants))
        steps += calls[at]
    names = dict.fromkeys(name for step in steps for name in (*_inputs(step), *_outputs(step)))
    return Partition(
        tuple(steps),
        {name: tensors[name] for name in names},
        {name: constants[name] for name in names if name in constants},
    )


def _inputs(step: Step) -> tuple[str, ...]:
    return step.inputs if isinstance(step, Subgraph) else tuple(step.inputs.values())


def _outputs(step: Step) -> tuple[str, ...]:
    return step.outputs if isinstance(step, Subgraph) else tuple(step.outputs.values())


def _attentions(graph: GraphProto, tensors: dict[str, Tensor]) -> dict[str, Attention]:
    """Every attention by its node's output; transposes that the kernels' strides replace are removed from the graph."""
    index = GraphIndex(graph.node)
    attentions: dict[str, Attention] = {}
    for node in [node for node in graph.node if node.domain == DOMAIN]:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        parsed = Node.of(node.op_type, attributes)
        inputs = dict(zip(parsed.inputs, node.input, strict=False))
        q = tensors[inputs["q"]]
        shape = parsed.shape(
            [tensors[name].shape for name in inputs.values()],
            Dtype.named(_NAMES.get(q.dtype, TensorProto.DataType.Name(q.dtype).lower())),
        )
        strides: dict[str, Strides] = {}
        for place, (name, tensor) in enumerate(list(inputs.items())[:3]):
            transpose = index.producers.get(tensor)
            if transpose is not None and _swaps_heads(transpose) and len(index.readers[tensor]) == 1:
                graph.node.remove(transpose)
                node.input[place] = inputs[name] = transpose.input[0]
                strides[name] = _row_strides(shape.A, shape.n if name == "q" else shape.m, shape.D)
        name = out = node.output[0]
        readers = index.readers[out]
        if len(readers) == 1 and _swaps_heads(readers[0]):
            graph.node.remove(readers[0])
            out = readers[0].output[0]
            strides["out"] = _row_strides(shape.A, shape.n, shape.D)
        shape = shape._replace(q=strides.get("q"), k=strides.get("k"), v=strides.get("v"), out=strides.get("out"))
        attentions[name] = Attention(shape, inputs, out)
    return attentions


def _swaps_heads(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and list(helper.get_attribute_value(node.attribute[0])) == _HEADS_APART


def _row_strides(A: int, n: int, D: int) -> Strides:
    """Strides of `[Z,n,A,D]`, of which the kernels read `[Z,A,n,D]`."""
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
        if (name in host or tensor.data_type in _HOST_TYPES) and not is_external(tensor)
    }
    produced = dict.fromkeys(name for node in nodes for name in node.output)
    inputs = tuple(
        dict.fromkeys(
            name for node in nodes for name in node.input if name and name not in produced and name not in inside
        )
    )
    outputs = tuple(name for name in produced if name in read_elsewhere)
    called = {name: f"i{number}" for number, name in enumerate(inputs)} | {
        name: f"o{number}" for number, name in enumerate(outputs)
    }
    for number, name in enumerate(produced):
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
    input_values, output_values = (
        [helper.make_tensor_value_info(called[name], tensors[name].dtype, tensors[name].shape) for name in names]
        for names in (inputs, outputs)
    )
    imports = [imported for imported in model.opset_import if imported.domain in ("", "ai.onnx")]
    graph = helper.make_graph(renamed, "piece", input_values, output_values, held)
    shed_views(graph, {called[name]: tensors[name].shape for name in called if name in tensors})
    whole = helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    return Subgraph(whole.SerializeToString(deterministic=True), inputs, outputs)
