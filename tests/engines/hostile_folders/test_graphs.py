"""Graphs whose weights, operators and borders are not those of an export."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from page4d.errors import Page4DError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d_engines import Pipeline
from page4d_engines.backend import Backend
from page4d_engines.engine_folder import EngineFolder
from tests.support.exports import load_refused, rehash
from tests.support.hostile.graphs import (
    LOCATIONS,
    a_graph_as_a_default,
    an_input_twice,
    attention_with_a_loop,
    endless_function,
    foreign,
    foreign_function,
    loop,
    nested,
    outside,
    place,
    sparse_weights_of_a_loop,
    trips_of_two_attributes,
    trips_that_hide_a_constant,
    trips_without_a_name,
    weights_of_a_loop,
    with_graph,
    with_loop,
)

SMALL = "onnx/mask_head.onnx"
LOWERED = "onnx/mask_head.cpu.onnx"
"""What ONNX Runtime loads on a CPU in place of `SMALL`."""
SMALLS = [SMALL, LOWERED]


@pytest.mark.parametrize("kind", LOCATIONS)
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.UINT8])
def test_weights_lie_beside_their_graph(folder, kind, dtype):
    (folder / "onnx" / "stranger.data").write_bytes(bytes(1 << 20))
    deeper = folder / "onnx" / LOCATIONS["a folder deeper"]
    deeper.parent.mkdir()
    deeper.write_bytes(bytes(1 << 20))
    rehash(folder, lambda manifest: manifest["files"].update({"onnx/deeper/w.data": "0" * 64}))

    def change(model):
        place(outside(model), location=LOCATIONS[kind], offset=0)
        outside(model).data_type = dtype

    load_refused(with_graph(folder, change), "weights that are not in the engine folder")


@pytest.mark.parametrize(
    "keys",
    [
        {"offset": 10**12},
        {"offset": -4096},
        {"offset": 2**63},
        {"offset": "0x10"},
        {"offset": " 0"},
        {"offset": 0, "length": 10**12},
        {"offset": 0, "length": 4},
        {"offset": 0, "length": -4},
        {"offset": 0, "basepath": "/etc"},
        {"offset": 0, "checksum": "x"},
    ],
)
def test_weights_lie_within_their_file(folder, keys):
    load_refused(
        with_graph(folder, lambda model: place(outside(model), location="encoder.onnx.data", **keys)),
        "weights (in a place that is none|beyond the end)",
    )


def test_a_place_is_said_once(folder):
    def change(model):
        tensor = outside(model)
        tensor.external_data.add(key="location", value="encoder.onnx.data")

    load_refused(with_graph(folder, change), "in a place that is none")


@pytest.mark.parametrize(
    ("dtype", "dims"),
    [
        (TensorProto.STRING, [1]),
        (TensorProto.INT4, [2]),
        (99, [1]),
        (TensorProto.FLOAT, [-1]),
        (TensorProto.FLOAT, [2**40]),
    ],
)
def test_weights_of_types_and_sizes_that_are_none(folder, dtype, dims):
    def change(model):
        tensor = outside(model)
        place(tensor, location="encoder.onnx.data", offset=0)
        tensor.data_type = dtype
        tensor.dims[:] = dims

    load_refused(with_graph(folder, change), "weights (in a place that is none|beyond the end)")


@pytest.mark.parametrize("name", SMALLS)
def test_weights_in_attributes_are_looked_at_as_well(folder, name):
    def change(model):
        tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
        place(tensor, location="/etc/passwd", offset=0)
        model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))

    load_refused(with_graph(folder, change, name), "weights that are not in the engine folder")


@pytest.mark.parametrize("name", SMALLS)
def test_sparse_weights_in_attributes_are_looked_at_as_well(folder, name):
    def change(model):
        values = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
        place(values, location="/etc/passwd", offset=0)
        indices = numpy_helper.from_array(np.arange(4))
        sparse = SparseTensorProto(values=values, indices=indices, dims=[8])
        model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], sparse_value=sparse))

    load_refused(with_graph(folder, change, name), "weights that are not in the engine folder")


def test_weights_of_graphs_for_a_cpu_lie_beside_them(folder):
    def change(model):
        place(outside(model), location="/etc/passwd", offset=0)

    load_refused(with_graph(folder, change, "onnx/encoder.cpu.onnx"), "weights that are not in the engine folder")


@pytest.mark.parametrize("name", SMALLS)
@pytest.mark.parametrize("change", [loop, foreign, foreign_function, endless_function])
def test_operators_that_are_not_the_exporters(folder, change, name):
    load_refused(with_graph(folder, change, name), "operator of an unknown kind")


@pytest.mark.parametrize(
    "change",
    [attention_with_a_loop(2**40), attention_with_a_loop(3, "Attention", "com.microsoft")],
)
def test_loops_of_graphs_for_a_cpu_end_and_have_the_exporters_operators(folder, change):
    load_refused(with_graph(folder, change, LOWERED), "operator of an unknown kind")


def test_trips_that_the_caller_of_a_function_gives_are_no_fixed_number(folder):
    def change(model):
        attention_with_a_loop(3)(model)
        (trips,) = model.functions[-1].node[0].attribute
        trips.Clear()
        trips.name, trips.ref_attr_name, trips.type = "value_int", "count", onnx.AttributeProto.INT

    load_refused(with_graph(folder, change, LOWERED), "operator of an unknown kind")


def test_a_loop_of_a_graph_for_a_cpu_that_ends_is_taken(folder):
    EngineFolder.open(with_graph(folder, attention_with_a_loop(3), LOWERED))


@pytest.mark.parametrize(
    "change",
    [
        nested(2**11, 2**10),
        *map(
            with_loop,
            (trips_without_a_name, trips_of_two_attributes, trips_that_hide_a_constant, a_graph_as_a_default),
        ),
    ],
)
def test_loops_that_look_as_if_they_ended(folder, change):
    load_refused(with_graph(folder, change, LOWERED), "operator of an unknown kind")


def test_loops_in_loops_are_taken_up_to_the_product_of_their_trips(folder):
    EngineFolder.open(with_graph(folder, nested(2**10, 2**10), LOWERED))


@pytest.mark.parametrize("change", [weights_of_a_loop, sparse_weights_of_a_loop])
def test_weights_in_loops_are_looked_at_as_well(folder, change):
    load_refused(
        with_graph(folder, with_loop(change), LOWERED), "not in the engine folder|has parts that no engine has"
    )


@pytest.mark.parametrize("name", SMALLS)
def test_weights_in_defaults_of_functions_are_looked_at_as_well(folder, name):
    def change(model):
        tensor = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[4])
        place(tensor, location="/etc/passwd", offset=0)
        imports = [helper.make_opsetid("", 20)]
        function = helper.make_function("page4d", "BiasedAttention", [], ["out"], [], imports)
        function.attribute_proto.append(helper.make_attribute("value", tensor))
        model.functions.append(function)

    load_refused(with_graph(folder, change, name), "not in the engine folder|operator of an unknown kind")


@pytest.mark.parametrize("name", SMALLS)
@pytest.mark.parametrize("content", [b"", b"no graph", bytes(1000), b"\x08" * 100])
def test_files_that_are_no_graphs(folder, content, name):
    (folder / name).write_bytes(content)
    rehash(folder)
    load_refused(folder, "is no ONNX file|has other inputs")


def border(way, change):
    return lambda model: change(getattr(model.graph, way)[0])


@pytest.mark.parametrize("way", ["input", "output"])
@pytest.mark.parametrize(
    "change",
    [
        lambda value: setattr(value, "name", "other"),
        lambda value: setattr(value.type.tensor_type, "elem_type", TensorProto.DOUBLE),
        lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_value", 7),
        lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_param", "n"),
        lambda value: value.type.tensor_type.shape.dim.add(dim_value=1),
        lambda value: value.type.Clear(),
    ],
)
def test_inputs_and_outputs_are_the_manifests(folder, way, change):
    load_refused(with_graph(folder, border(way, change), SMALL), "than the manifest says|is not what the manifest says")


@pytest.mark.parametrize("way", ["input", "output"])
@pytest.mark.parametrize(
    "change",
    [
        lambda value: setattr(value, "name", "other"),
        lambda value: setattr(value.type.tensor_type, "elem_type", TensorProto.DOUBLE),
        lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_value", 7),
        lambda value: setattr(value.type.tensor_type.shape.dim[0], "dim_param", "n"),
        lambda value: value.type.Clear(),
    ],
)
def test_inputs_and_outputs_of_graphs_for_a_cpu_have_the_manifests_sizes(folder, way, change):
    load_refused(with_graph(folder, border(way, change), LOWERED), "than the manifest says")


@pytest.mark.parametrize("name", SMALLS)
def test_an_input_is_there_once(folder, name):
    load_refused(with_graph(folder, an_input_twice, name), "has other inputs than the manifest says")


def test_a_graph_that_says_two_sizes_of_one_tensor_writes_nowhere(folder):
    """Shapes inside a graph are anybody's word; memory is bound by the size of the manifest's."""

    def change(model):
        for value in model.graph.value_info:
            value.type.tensor_type.shape.dim[0].dim_value = 2**20

    with pytest.raises(Page4DError):
        Pipeline.load(with_graph(folder, change, "onnx/encoder.cpu.onnx"), Backend.ONNXRUNTIME, threads=1).run(
            np.zeros(read_manifest(folder).layout.images_shape, np.uint8)
        )


def test_bounds_hold_without_assertions(folder):
    """`python -O` takes assertions away: what they kept from memory must be kept by something else."""
    program = """
import sys, numpy as np
from page4d.errors import EngineError
from page4d_engines.ort.cpu_engine import OrtEngine
assert False, "assertions are on"
engine = OrtEngine(__import__("pathlib").Path(sys.argv[1]))
three = np.zeros(3, np.float32)
try:
    engine.bind({"tokens": three, "mask_ext": three}, {"mask": three})
except EngineError as error:
    print(error.what)
"""
    done = subprocess.run([sys.executable, "-O", "-c", program, folder / SMALL], capture_output=True, text=True)
    assert done.returncode == 0 and "does not lie in memory as its graph says" in done.stdout, done.stderr
