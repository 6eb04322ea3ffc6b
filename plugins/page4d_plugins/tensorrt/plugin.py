"""The two attention ops as TensorRT plugins (IPluginV3), for TensorRT 10.3 to 11 and TensorRT-RTX, from Python alone.

`register(trt)` makes them known to a TensorRT module; from then on its ONNX parser takes them for nodes that carry
`plugin_namespace="page4d"`, and its runtime finds them when it loads an engine. Building needs no GPU.
"""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from page4d.errors import Page4DError, UsageError
from page4d.ops import BIASED_ATTENTION, DOMAIN, PLUGIN_ATTRIBUTES, SEGMENT_ATTENTION
from page4d_plugins.driver import current_device
from page4d_plugins.kernel_pack import shipped
from page4d_plugins.launch_plan import Shape
from page4d_plugins.launcher import Launcher
from page4d_plugins.modes import Dtype
from page4d_plugins.node import FIELDS, Node, most_workspace

_VERSION = PLUGIN_ATTRIBUTES["plugin_version"]
_LOG = logging.getLogger("page4d.plugin")


def register(trt: ModuleType) -> None:
    """Make both ops known to a TensorRT module's registry; a second call changes nothing."""
    registry = trt.get_plugin_registry()
    for op in (BIASED_ATTENTION, SEGMENT_ATTENTION):
        if registry.get_creator(op, _VERSION, DOMAIN) is None:
            registry.register_creator(_creator(trt, op), DOMAIN)


@cache
def _creator(trt: ModuleType, op: str) -> Any:
    """A creator of an op's plugins; cached, since the registry holds no reference."""
    plugin = _plugin_class(trt)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc, name-defined]
        """Makes plugins of one op from a node's attributes, or from what an engine holds."""

        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = op
            self.plugin_namespace = DOMAIN
            self.plugin_version = _VERSION
            self.field_names = trt.PluginFieldCollection(
                [_field(trt, name, kind, None) for name, kind in FIELDS[op].items()]
            )

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            arrays = {field.name: np.ravel(field.data) for field in fields if field.data is not None}
            values = {field: array[0] for field, array in arrays.items() if array.size}
            try:
                return plugin(Node.of(op, values))
            except Page4DError as error:
                _LOG.error("%s: %s", name, error)
                return None

    return Creator()


@cache
def _plugin_class(trt: ModuleType) -> Any:
    types = {trt.float16: "float16", trt.bfloat16: "bfloat16", trt.float32: "float32", trt.int32: "int32"}

    class AttentionPlugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):  # type: ignore[misc, name-defined]
        """One attention node. Where it raises, TensorRT logs the error and refuses the network or the call."""

        def __init__(self, node: Node) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.num_outputs = 1
            self.plugin_name = node.op
            self.plugin_namespace = DOMAIN
            self.plugin_version = _VERSION
            self.node = node
            self.shape: Shape | None = None
            self.launcher: Launcher | None = None

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            copy = AttentionPlugin(self.node)
            copy.shape = self.shape
            return copy

        # ---- build

        def get_output_data_types(self, inputs: Any) -> Any:
            return [inputs[0]]

        def get_output_shapes(self, inputs: Any, shape_inputs: Any, builder: Any) -> Any:
            return [trt.DimsExprs(inputs[0])]

        def supports_format_combination(self, position: int, tensors: Any, inputs: int) -> bool:
            if tensors[position].desc.format != trt.TensorFormat.LINEAR:
                return False
            names = [types.get(tensor.desc.type, "") for tensor in tensors[: position + 1]]
            return self.node.accepts(position, names + [""] * (inputs + 1 - len(names)))

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            shapes = [tuple(tensor.desc.dims) for tensor in inputs]
            if any(size < 0 for shape in shapes for size in shape):
                raise UsageError(
                    f"{self.node.op} with a shape that is not fixed", got=shapes, allowed="the same shapes at every run"
                )
            self.shape = self._shape([tensor.desc for tensor in inputs])

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            return most_workspace(self._shape([tensor.desc for tensor in inputs]))

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection(
                [_field(trt, name, FIELDS[self.node.op][name], value) for name, value in self.node.fields.items()]
            )

        # ---- run

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            shape = self._shape(inputs)
            if self.launcher is None or shape != self.shape:
                self.shape = shape
                self.launcher = Launcher(shape, current_device(), shipped())

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def enqueue(
            self, input_desc: Any, output_desc: Any, inputs: Any, outputs: Any, workspace: int, stream: int
        ) -> None:
            assert self.launcher is not None
            addresses = dict(zip(self.node.inputs, inputs, strict=False))
            self.launcher(addresses | {"out": outputs[0], "workspace": workspace}, stream)

        def _shape(self, tensors: Any) -> Shape:
            return self.node.shape([tuple(tensor.dims) for tensor in tensors], Dtype.named(types[tensors[0].type]))

    return AttentionPlugin


def _field(trt: ModuleType, name: str, kind: type, value: float | None) -> Any:
    is_float = kind is float
    values = np.array([] if value is None else [value], np.float32 if is_float else np.int32)
    return trt.PluginField(name, values, trt.PluginFieldType.FLOAT32 if is_float else trt.PluginFieldType.INT32)
