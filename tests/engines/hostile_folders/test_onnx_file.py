"""The reader of ONNX files sees what protobuf sees, or refuses the file."""

import onnx
import pytest
from google.protobuf.message import DecodeError

from page4d_engines.stage_files.onnx_file import MESSAGES, OnnxFile
from page4d_engines.stage_files.protobuf_fields import DamagedError
from tests.support.hostile.mutations import mutated

KINDS = {"int": "nN", "enum": "nN", "float": "fF", "double": "dD", "string": "mM", "bytes": "mM", "message": "mM"}


def kind_of(field):
    """As `Kinds` writes it."""
    name = {1: "double", 2: "float", 9: "string", 11: "message", 12: "bytes", 14: "enum"}.get(field.type, "int")
    # protobuf before 7 has no `is_repeated`, and newer ones warn of `label`
    is_repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    return KINDS[name][is_repeated]


@pytest.mark.parametrize("name", MESSAGES)
def test_every_field_that_onnx_has_is_known(name):
    """A message with another field is refused: a newer ONNX must not be refused for what it may have."""
    message = onnx
    for part in name.split("."):
        message = getattr(message, part)
    fields = {field.number: kind_of(field) for field in message.DESCRIPTOR.fields}
    assert fields.items() <= MESSAGES[name].items()


def contents(folder):
    return [path.read_bytes() for path in sorted((folder / "onnx").glob("*.onnx"))]


def by_protobuf(content):
    """What `OnnxFile` reads, read by onnx."""
    model = onnx.load_model_from_string(content)
    return of_graph(model.graph), [
        (function.name, function.domain, list(function.input), list(map(of_node, function.node)))
        for function in model.functions
    ]


def of_graph(graph):
    return (
        list(map(of_node, graph.node)),
        list(map(of_tensor, graph.initializer)),
        list(map(of_value, graph.input)),
        list(map(of_value, graph.output)),
    )


def of_node(node):
    return node.op_type, node.domain, list(node.input), list(node.output), list(map(of_attribute, node.attribute))


def of_attribute(attribute):
    is_integer = attribute.type == onnx.AttributeProto.INT and attribute.HasField("i")
    integer = attribute.i if is_integer and not attribute.HasField("ref_attr_name") else None
    tensors = [attribute.t] if attribute.HasField("t") else []
    graphs = [attribute.g] if attribute.HasField("g") else []
    tensors += attribute.tensors
    return (
        attribute.name,
        integer,
        list(map(of_tensor, tensors)),
        [of_graph(graph) for graph in (*graphs, *attribute.graphs)],
    )


def of_tensor(tensor):
    is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
    place = [(entry.key, entry.value) for entry in tensor.external_data] if is_external else None
    return tensor.name, tensor.data_type, list(tensor.dims), place


def of_value(value):
    tensor = value.type.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") and side.dim_value >= 0 else -1 for side in tensor.shape.dim]
    return value.name, tensor.elem_type, sides


def plain(model):
    """An `OnnxFile` as `by_protobuf` has it."""

    def node(part):
        return part.op_type, part.domain, list(part.inputs), list(part.outputs), list(map(attribute, part.attributes))

    def attribute(part):
        return part.name, part.integer, list(map(tensor, part.tensors)), list(map(graph, part.graphs))

    def tensor(part):
        return part.name, part.dtype, list(part.dims), None if part.place is None else list(part.place)

    def value(part):
        return part.name, part.dtype, list(part.shape)

    def graph(part):
        return (
            list(map(node, part.nodes)),
            list(map(tensor, part.initializers)),
            list(map(value, part.inputs)),
            list(map(value, part.outputs)),
        )

    functions = [(part.name, part.domain, list(part.inputs), list(map(node, part.nodes))) for part in model.functions]
    return graph(model.graph), functions


def test_it_reads_what_onnx_reads(made):
    files = [*contents(made().folder), *contents(made("default", "int8").folder)]
    assert len(files) > 10
    for content in files:
        assert plain(OnnxFile.parse(content)) == by_protobuf(content)


def test_of_changed_files_it_reads_what_onnx_reads_or_refuses_them(made):
    taken = refused = 0
    for content in mutated([content for content in contents(made().folder) if len(content) < 1 << 15], 1500):
        try:
            model = OnnxFile.parse(content)
        except DamagedError:
            refused += 1
            continue
        try:
            expected = by_protobuf(content)
        except DecodeError:  # in a part that the checks do not look at: ONNX Runtime refuses it
            continue
        taken += 1
        assert plain(model) == expected
    assert taken > 100 and refused > 100


@pytest.mark.parametrize(
    "content",
    [
        b"\x3a\x00\x3a\x00",  # two graphs, which protobuf makes one of
        b"\x3a\x00\xf8\x3f\x01",  # a field that ONNX has not
        b"\x3a\x00\x0b\x0c",  # a group
        b"\x3a\x00\x0a\x00",  # a text in a number's place
        b"\x3a\x04\x0a\x02\x22\x01",  # cut short inside
        b"\x3a\x05\x0a\x03\x22\x01\xc3",  # an operator that is no plain text
        b"\x3a\x00\x08" + b"\xff" * 10 + b"\x01",  # a number of 77 bits
        b"\x3a\x00\x08" + b"\xff" * 9 + b"\x02",  # of 65
    ],
)
def test_messages_that_no_exporter_writes(content):
    OnnxFile.parse(b"\x3a\x00\x08\x0a")
    with pytest.raises(DamagedError):
        OnnxFile.parse(content)


def test_graphs_inside_graphs_end(made):
    graph = b""
    for _ in range(50):
        attribute = b"\x32" + varint(len(graph)) + graph
        node = b"\x2a" + varint(len(attribute)) + attribute
        graph = b"\x0a" + varint(len(node)) + node
    with pytest.raises(DamagedError, match="too deep"):
        OnnxFile.parse(b"\x3a" + varint(len(graph)) + graph)


def varint(value):
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
