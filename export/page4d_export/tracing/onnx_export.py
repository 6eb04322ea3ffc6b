"""Stages become ONNX files.

Stages that differ in their weights alone are traced once: the trace takes the weights as inputs, and every stage's file
is that graph with its own weights put in their place.
"""

from __future__ import annotations

import logging
import pathlib
import warnings
from collections.abc import Callable

import onnx
import onnx_ir
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnx_ir.tensor_adapters import TorchTensor
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from page4d.ops import DOMAIN, PLUGIN_ATTRIBUTES, AttentionChoice
from page4d_export.stage import Stage
from page4d_export.tracing.onnx_functions import function_for
from page4d_export.tracing.trace_cache import TraceCache, trace_key

OPSET = 20  # the lowest that types bfloat16 for every operator in use
_LARGEST_CONSTANT = 1 << 28  # elements
_EXTERNAL_ABOVE = 1 << 20  # bytes of weights that still go into the .onnx itself
_TENSOR_EXTERNAL_ABOVE = 1 << 10  # bytes of a tensor that stays in the .onnx where others do not


class OnnxExporter:
    """Writes stages to a folder as `<stage>.onnx`, with `<stage>.onnx.data` beside it where the weights are large.

    Fixed shapes, opset 20; inputs and outputs are named and typed as the stage's entry says; attention is a node of
    this project's domain with a function body.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        head_dim: int,
        attention: AttentionChoice = AttentionChoice.AUTO,
        traces: TraceCache | None = None,
    ) -> None:
        self.folder, self.head_dim, self.attention = folder, head_dim, attention
        self._traces = TraceCache.of_environment() if traces is None else traces

    def write(self, stage: Stage, change: Callable[[onnx_ir.Model], None] | None = None) -> pathlib.Path:
        """Write one stage, `change` having changed its graph and weights; the path of its .onnx."""
        module = stage.module
        weights: dict[str, Tensor] = dict(module.named_parameters())
        key = trace_key(stage, module, self.attention, self.head_dim)
        model = onnx_ir.from_proto(self._traces.get(key, lambda: self._trace(stage, module, weights)))
        _insert(model, weights)
        path = self.folder / f"{stage.name}.onnx"
        external = f"{path.name}.data" if stage.entry.weight_bytes > _EXTERNAL_ABOVE else None
        if change is not None:
            change(model)
        onnx_ir.save(model, path, external_data=external, size_threshold_bytes=_TENSOR_EXTERNAL_ABOVE)
        onnx.checker.check_model(str(path))
        return path

    def _trace(self, stage: Stage, module: nn.Module, weights: dict[str, Tensor]) -> onnx.ModelProto:
        inputs = [torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in stage.inputs]
        silence("torch.onnx", "onnxscript")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecations inside torch's exporter
            program = torch.onnx.export(
                _Weightless(module, list(weights)).eval(),
                (*weights.values(), *inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=[*weights, *(spec.binding for spec in stage.inputs)],
                output_names=[spec.binding for spec in stage.outputs],
                verbose=False,
            )
        assert program is not None
        model = program.model
        _keep_names_apart(model)
        _fold_float64(model)
        _strip(model)
        for node in list(model.graph):
            if node.domain == DOMAIN:
                if self.attention is AttentionChoice.NATIVE:
                    for name in PLUGIN_ATTRIBUTES:
                        del node.attributes[name]
                function = onnx_ir.serde.deserialize_function(function_for(onnx_ir.to_proto(node), self.head_dim))
                model.functions[function.identifier()] = function
        return onnx_ir.to_proto(model)


def silence(*loggers: str) -> None:
    """Let loggers report errors alone: exporters warn of optional packages, and of constants that stay as they are."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)


class _Weightless(nn.Module):
    """A module as a function of its weights, then its inputs."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self._held = (module,)  # in a tuple, so that its weights are not this module's
        self._names = names

    def forward(self, *values: Tensor) -> object:
        weights = dict(zip(self._names, values, strict=False))
        return torch.func.functional_call(self._held[0], weights, values[len(weights) :])


def _keep_names_apart(model: onnx_ir.Model) -> None:
    """Rename values that the trace called after their operator, and so as an output is called: `select`."""
    outputs = set(model.graph.outputs)
    names = {value.name for value in outputs}
    for node in model.graph:
        for value in node.outputs:
            if value.name in names and value not in outputs:
                value.name = f"{value.name}_inside"


def _insert(model: onnx_ir.Model, weights: dict[str, Tensor]) -> None:
    """Turn the weight inputs into initializers; reshapes, transposes and splits of weights are done here, not by the
    engines."""
    graph = model.graph
    for value in list(graph.inputs):
        if value.name in weights:
            graph.inputs.remove(value)
            if value.uses():
                _place(graph, value, weights[value.name])


def _place(graph: onnx_ir.Graph, value: onnx_ir.Value, weight: Tensor) -> None:
    for node, _ in list(value.uses()):
        if node.op_type == "Transpose":
            _replace(graph, node, [weight.permute(*node.attributes["perm"].as_ints())])
        elif node.op_type == "Reshape":
            shape = node.outputs[0].shape
            assert shape is not None
            _replace(graph, node, [weight.reshape([int(size) for size in shape.numpy()])])
        elif node.op_type == "Split":
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
            sizes = [int(output.shape.numpy()[axis]) for output in node.outputs if output.shape is not None]
            _replace(graph, node, list(weight.split(sizes, dim=axis)))
    if value.uses():
        value.const_value = TorchTensor(weight, name=value.name)
        graph.register_initializer(value)


def _replace(graph: onnx_ir.Graph, node: onnx_ir.Node, results: list[Tensor]) -> None:
    """Make a node's outputs weights of their own, and take it out."""
    source = node.inputs[0]
    assert source is not None
    for number, (output, result) in enumerate(zip(node.outputs, results, strict=True)):
        name = f"{source.name}/{node.op_type.lower()}{number if len(results) > 1 else ''}"
        weight = onnx_ir.Value(name=name, shape=onnx_ir.Shape(result.shape), type=output.type)
        output.replace_all_uses_with(weight)
        _place(graph, weight, result)
    graph.remove(node, safe=True)


def _fold_float64(model: onnx_ir.Model) -> None:
    """Compute constants that come of float64 here, whatever their size: engines have no float64.

    The exporter folds small ones alone. Weights are inputs, and stay.
    """
    constants = [*model.graph.initializers.values(), *(output for node in model.graph for output in node.outputs)]
    if any(value.dtype == onnx_ir.DataType.DOUBLE for value in constants):
        fold_constants(model, input_size_limit=_LARGEST_CONSTANT, output_size_limit=_LARGEST_CONSTANT)
        RemoveUnusedNodesPass()(model)


def _strip(model: onnx_ir.Model) -> None:
    """Remove the trace's notes: source lines, and paths of the exporting machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
