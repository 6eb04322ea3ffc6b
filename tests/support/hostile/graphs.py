"""Graphs that no exporter writes, made of those of an engine folder."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.exports import rehash

ENCODER = "onnx/encoder.onnx"


def with_graph(folder, change, name=ENCODER):
    model = onnx.load(folder / name, load_external_data=False)
    change(model)
    (folder / name).write_bytes(model.SerializeToString())
    rehash(folder)
    return folder


def place(tensor, **keys):
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    tensor.ClearField("raw_data")
    for key, value in keys.items():
        tensor.external_data.add(key=key, value=str(value))


def outside(model):
    return next(tensor for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL)


LOCATIONS = {
    "absolute": "/etc/passwd",
    "upwards": "../manifest.json",
    "not listed": "stranger.data",
    "a folder deeper": "deeper/w.data",
    "ONNX Runtime's word for an address in memory": "*/_ORT_MEM_ADDR_/*",
    "none": "",
    "Windows": "..\\manifest.json",
}


def loop(model):
    out = model.graph.output[0]
    shape = [side.dim_value for side in out.type.tensor_type.shape.dim]
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("before", "after")]
    go = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["before"], ["after"])]
    body = helper.make_graph(
        nodes, "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []), go[0], tensor[0]], [go[1], tensor[1]]
    )
    constants = {"count": np.array(2**62), "true": np.array(True), "zero": np.zeros(shape, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Loop", list(constants), [out.name], body=body))


def foreign(model):
    model.graph.node[0].domain = "evil.ops"
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))


def foreign_function(model):
    model.functions.append(
        helper.make_function(
            "", "Add", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 20)]
        )
    )


def endless_function(model):
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("page4d", 1)]
    del model.functions[:]
    nodes = [helper.make_node("BiasedAttention", ["a"], ["b"], domain="page4d")]
    model.functions.append(helper.make_function("page4d", "BiasedAttention", ["a"], ["b"], nodes, imports))


def attention_with_a_loop(trips, operator="Identity", domain=""):
    """A function of a graph for a CPU with a loop inside; nothing calls it."""

    def change(model):
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), helper.make_node(operator, ["a"], ["b"], domain=domain)],
            "body",
            [
                helper.make_tensor_value_info(*value)
                for value in (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []))
            ],
            [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("b", 1, [1])],
        )
        nodes = [
            helper.make_node("Constant", [], ["trips"], value_int=trips),
            helper.make_node("Loop", ["trips", ""], ["out"], body=body),
        ]
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model.functions.append(helper.make_function("page4d", "BiasedAttention_7", ["a"], ["out"], nodes, imports))

    return change


def with_loop(change):
    """As `attention_with_a_loop(3)`; `change` gets the function, the loop and the loop's body."""

    def changed(model):
        attention_with_a_loop(3)(model)
        function = model.functions[-1]
        change(function, function.node[1], function.node[1].attribute[0].g)

    return changed


def nested(outer, inner):
    """A loop in the loop."""

    def change(function, loop, body):
        function.node[0].attribute[0].i = outer
        copy = onnx.NodeProto()
        copy.CopyFrom(loop)
        copy.input[0], copy.output[0] = "inside", "inner"
        body.node.extend([helper.make_node("Constant", [], ["inside"], value_int=inner), copy])

    return with_loop(change)


def trips_without_a_name(function, loop, body):
    """An input of no name is absent: the loop has no end."""
    function.node[0].output[0] = loop.input[0] = ""


def trips_of_two_attributes(function, loop, body):
    function.node[0].attribute.insert(0, helper.make_attribute("value_int", 2**62))


def trips_that_hide_a_constant(function, loop, body):
    """The inner loop reads the outer one's counter, not the constant of that name."""
    copy = onnx.NodeProto()
    copy.CopyFrom(loop)
    copy.output[0] = "inner"
    body.input[0].name = "trips"
    body.node.append(copy)


def a_graph_as_a_default(function, loop, body):
    function.attribute_proto.append(helper.make_attribute("body", body))


def weights_of_a_loop(function, loop, body):
    tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
    place(tensor, location="/etc/passwd", offset=0)
    body.initializer.append(tensor)


def sparse_weights_of_a_loop(function, loop, body):
    body.sparse_initializer.add()


def an_input_twice(model):
    model.graph.input.append(model.graph.input[0])
