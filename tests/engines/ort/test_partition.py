"""Stages cut at our kernels: piece by piece they compute the stage, and no two live tensors share memory."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from page4d.accuracy import compare
from page4d.precision import Precision
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_engines.ort.onnx_graph import VIEWS, Tensor
from page4d_engines.ort.partition import Attention, Partition, Subgraph, partition
from page4d_engines.ort.partitioned_engine import raw, widen_unsupported
from page4d_engines.ort.rows.row_fusion import RowCall, fuse_rows
from page4d_export.stage import stages
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_plugins.launch_plan import Shape
from page4d_plugins.modes import Dtype, Mode
from page4d_plugins.row_launch import RowKernel, gelu_launch
from tests.support.driver.pieces_on_the_cpu import attended, joined
from tests.support.examples import examples
from tests.support.models import EXPORTED, config_of, layout_of, lively


def loaded(folder, entry):
    path = folder / "onnx" / f"{entry.name}.onnx"
    return onnx.load(path, load_external_data=False), path


def cut_up(model):
    """As `PartitionedEngine` does."""
    rows = fuse_rows(model.graph)
    widen_unsupported(model.graph)
    return partition(model, rows)


def run_pieces(pieces, values, path):
    """The steps on a CPU: a session per piece, its weights and borders fed by name."""
    for name, tensor in pieces.weights.items():
        border = pieces.tensors[name]
        values[name] = (
            raw(tensor, path.parent).view(helper.tensor_dtype_to_np_dtype(border.dtype)).reshape(border.shape)
        )
    for step in pieces.steps:
        if isinstance(step, Attention):
            results = {step.out: attended(step, values)}
        elif isinstance(step, RowCall):
            results = joined(step, values)
        else:
            session = onnxruntime.InferenceSession(step.content, providers=["CPUExecutionProvider"])
            borders = zip(session.get_inputs(), step.inputs, strict=True)
            results = dict(
                zip(
                    step.outputs,
                    session.run(None, {border.name: values[name].reshape(border.shape) for border, name in borders}),
                    strict=True,
                )
            )
        values |= {name: array.reshape(pieces.tensors[name].shape) for name, array in results.items()}
    return values


@pytest.mark.parametrize(
    ("variant", "absent_views"),
    [
        *(pytest.param(name, False, marks=[pytest.mark.slow] if name == "late" else []) for name in EXPORTED),
        ("vggt", True),
        pytest.param("page4d 2026", True, marks=pytest.mark.slow),
    ],
)
def test_run_piece_by_piece_a_stage_is_the_stage(made, variant, absent_views):
    made_ = made(variant, "float16", absent_views=absent_views)
    folder, plan = made_.folder, made_.plan
    rng = np.random.default_rng(0)
    for entry in plan.stages():
        model, path = loaded(folder, entry)
        inputs = {}
        for spec in entry.inputs:
            values = rng.integers(0, 256, spec.shape) if spec.dtype == "uint8" else rng.uniform(0, 1, spec.shape)
            inputs[spec.binding] = (values % 2 if spec.name == "present" else values).astype(spec.dtype)
        pieces = cut_up(model)
        results = run_pieces(pieces, dict(inputs), path)
        outputs = {spec.binding: np.empty(spec.shape, np.float32) for spec in entry.outputs}
        wide = {
            name: np.ascontiguousarray(value if value.dtype == np.uint8 else value.astype(np.float32))
            for name, value in inputs.items()
        }
        OrtEngine(path, rounding=True).bind(wide, outputs)()
        for name, expected in outputs.items():
            accuracy = compare(results[name].astype(np.float32), expected)
            assert accuracy.nans == 0 and accuracy.relative_l2 < 2 * Precision.FLOAT16.tolerance, (
                f"{entry.name} {name}: {accuracy}"
            )
        assert not any(len(tensor.shape) == 4 and tensor.shape[-2:] == (51, 51) for tensor in pieces.tensors.values())


def test_convolutions_in_bfloat16_widen_their_weights_where_they_read_them(tmp_path):
    """Between pieces a widened weight would be a tensor of its own, twice as large as the weight."""
    config = config_of("vggt")
    stage = stages(lively(config), layout_of("vggt", 42, 70), Precision.BFLOAT16)["depth"]
    path = OnnxExporter(tmp_path, config.head_dim).write(stage)
    pieces = cut_up(onnx.load(path, load_external_data=False))
    graphs = [onnx.load_from_string(step.content) for step in pieces.steps if isinstance(step, Subgraph)]
    kinds = [node.op_type for model in graphs for node in model.graph.node]
    assert (kinds.count("Conv"), kinds.count("ConvTranspose"), kinds.count("Resize")) == (26, 2, 5)
    for model in graphs:
        onnx.checker.check_model(model, full_check=True)
        types = {
            value.name: value.type.tensor_type.elem_type
            for value in onnx.shape_inference.infer_shapes(model).graph.value_info
        }
        for node in model.graph.node:
            if node.op_type in ("Conv", "ConvTranspose", "Resize"):
                assert types[node.output[0]] == TensorProto.FLOAT, "there are no kernels for bfloat16"
    between = set(pieces.tensors) - set(pieces.weights)
    assert not any("/wide" in name for name in between)


def contents(model):
    return [step.content for step in cut_up(model).steps if isinstance(step, Subgraph)]


def encoder_contents(folder, depth):
    config = config_of("default", encoder_depth=depth)
    folder.mkdir()
    stage = stages(lively(config), layout_of("default", 28, 42), Precision.FLOAT16)["encoder"]
    return contents(onnx.load(OnnxExporter(folder, config.head_dim).write(stage), load_external_data=False))


def test_equal_blocks_are_the_same_pieces(made, tmp_path):
    """All inner blocks of an encoder, all stages of a kind: sessions are few, whatever the depth."""
    short, long = (encoder_contents(tmp_path / str(depth), depth) for depth in (3, 5))
    assert set(short) == set(long) and len(long) == len(short) + 2 * 4, "a block has four products, q, k and v in one"
    made_ = made("default", "float16")
    pieces = {entry.name: contents(loaded(made_.folder, entry)[0]) for entry in made_.plan.stages()}
    assert pieces["time_sa.0"] == pieces["time_sa.1"] and pieces["view_sa.0"] != pieces["view_sa.1"], (
        "the first makes two streams of one"
    )


def test_between_products_nothing_is_left_to_onnx_runtime(made):
    """But for the bias of v, and for what a stage computes around its block."""
    made_ = made("default", "float16")
    (entry,) = (entry for entry in made_.plan.stages() if entry.name == "view_sa.1")
    steps = cut_up(loaded(made_.folder, entry)[0]).steps
    pieces = [onnx.load_from_string(step.content).graph for step in steps if isinstance(step, Subgraph)]
    assert [[node.op_type for node in graph.node] for graph in pieces[1:]] == [
        ["MatMul", "MatMul", "MatMul", "Add"],
        ["MatMul"],
        ["MatMul"],
        ["MatMul"],
    ]
    assert all({node.op_type for node in graph.node} != set(VIEWS) for graph in pieces), (
        "nothing is copied to be given another shape"
    )
    rows = [step for step in steps if isinstance(step, RowCall)]
    assert [step.kernel for step in rows] == [
        RowKernel.NORM,
        RowKernel.HEADS,
        RowKernel.HEADS,
        RowKernel.ADD_NORM,
        RowKernel.GELU,
        RowKernel.ADD,
    ]
    assert rows[-1].outputs == {"sum": entry.outputs[0].binding} and rows[0].inputs["x"] == entry.inputs[0].binding
    assert [step.over is not None for step in rows] == [False, True, True, True, True, False], (
        "the largest tensor exists once"
    )


def linear_and(*nodes, outputs=("y",), **constants):
    """x @ w + bias as `linear`, float16 `[6,32]` with 32 channels, then `nodes`.

    Every tensor has that shape and type, but for those named `wide..`, which are float32."""
    half = {"w": (32, 32), "bias": (32,), "gamma": (32,)} | constants
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float16), name) for name, shape in half.items()
    ]
    weights += [
        numpy_helper.from_array(rng.standard_normal(32).astype(np.float32), name) for name in ("weight", "shift")
    ]
    linear = helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "bias"], ["linear"])
    names = dict.fromkeys(("x", *(name for node in (*linear, *nodes) for name in node.output)))
    info = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT if name.startswith("wide") else TensorProto.FLOAT16, [6, 32]
        )
        for name in names
    ]
    borders = {value.name: value for value in info}
    graph = helper.make_graph([*linear, *nodes], "g", [borders["x"]], [borders[name] for name in outputs], weights)
    graph.value_info.extend(info)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


GELU = helper.make_node("Gelu", ["linear"], ["y"])
SCALED = helper.make_node("Mul", ["linear", "gamma"], ["scaled"])
SUM = helper.make_node("Add", ["x", "scaled"], ["y"])
NORM = [
    helper.make_node("Cast", ["y"], ["wide"], to=TensorProto.FLOAT),
    helper.make_node("LayerNormalization", ["wide", "weight", "shift"], ["wide normed"], axis=-1, epsilon=1e-6),
    helper.make_node("Cast", ["wide normed"], ["n"], to=TensorProto.FLOAT16),
]
CHAINS = {
    "gelu": (linear_and(GELU), [RowKernel.GELU]),
    "gelu by tanh": (linear_and(helper.make_node("Gelu", ["linear"], ["y"], approximate="tanh")), []),
    "gelu, and its input read": (linear_and(GELU, outputs=("y", "linear")), [RowKernel.GELU]),
    "sum": (linear_and(SCALED, SUM), [RowKernel.ADD]),
    "sum of a product with a tensor": (linear_and(helper.make_node("Mul", ["linear", "x"], ["scaled"]), SUM), []),
    "sum with one row": (linear_and(SCALED, helper.make_node("Add", ["one", "scaled"], ["y"]), one=(1, 32)), []),
    "sum and norm": (linear_and(SCALED, SUM, *NORM, outputs=("y", "n")), [RowKernel.ADD_NORM]),
    "norm, its sum read by nobody else": (linear_and(SCALED, SUM, *NORM, outputs=("n",)), [RowKernel.ADD_NORM]),
    "norm alone": (linear_and(helper.make_node("Abs", ["linear"], ["y"]), *NORM, outputs=("n",)), [RowKernel.NORM]),
    "norm that stays wide": (
        linear_and(helper.make_node("Abs", ["linear"], ["y"]), *NORM[:2], outputs=("wide normed",)),
        [],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_and_what_only_looks_like_them(name, tmp_path):
    model, kernels = CHAINS[name]
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(1).standard_normal((6, 32)).astype(np.float16)
    expected = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    names = [value.name for value in model.graph.output]
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    pieces = cut_up(changed)
    assert [step.kernel for step in pieces.steps if isinstance(step, RowCall)] == kernels
    results = run_pieces(pieces, {"x": x}, tmp_path)
    for output, value in zip(names, expected, strict=True):
        accuracy = compare(results[output].astype(np.float32), value.astype(np.float32))
        assert accuracy.nans == 0 and accuracy.relative_l2 < 2e-3


def test_heads_are_read_and_written_where_linear_layers_left_them(made):
    made_ = made("default", "float16")
    for entry in made_.plan.stages():
        pieces = cut_up(loaded(made_.folder, entry)[0])
        for step in pieces.steps:
            if isinstance(step, Attention):
                Z, A, n, D = step.shape.Z, step.shape.A, step.shape.n, step.shape.D
                assert step.shape.q == step.shape.out == (n * A * D, D, A * D)
                assert pieces.tensors[step.out].shape == (Z, n, A, D)


def test_bfloat16_asks_for_nothing_that_onnx_runtime_lacks(made):
    made_ = made("default", "bfloat16")
    for entry in made_.plan.stages():
        model, _ = loaded(made_.folder, entry)
        before = sum(node.op_type in ("Conv", "Gelu") for node in model.graph.node)
        cut_model = cut_up(model)
        seen = 0
        for step in cut_model.steps:
            if isinstance(step, Subgraph):
                proto = onnx.load_from_string(step.content)
                onnx.checker.check_model(proto, full_check=True)
                types = {
                    value.name: value.type.tensor_type.elem_type
                    for value in onnx.shape_inference.infer_shapes(proto).graph.value_info
                }
                for node in proto.graph.node:
                    if node.op_type in ("Conv", "Gelu"):
                        seen += 1
                        assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT
            elif isinstance(step, RowCall):
                seen += step.kernel is RowKernel.GELU
                assert step.dtype is Dtype.BFLOAT16
            else:
                assert step.shape.dtype is Dtype.BFLOAT16
        assert seen == before


@examples(300)
@given(st.data())
def test_places_do_not_overlap_in_time(data):
    """But for what is written over something that nobody reads any more."""
    count = data.draw(st.integers(1, 9))
    names = [f"t{number}" for number in range(count)]
    sizes = {name: data.draw(st.integers(1, 3000)) for name in names}
    reads = [
        data.draw(st.lists(st.sampled_from(names[:number]), unique=True)) if number else [] for number in range(count)
    ]
    outside = data.draw(st.lists(st.sampled_from(names), unique=True))
    steps, over = [], {}
    for number, (name, read) in enumerate(zip(names, reads, strict=True)):
        readers = {source: sum(source in names_read for names_read in reads) for source in read}
        free = [source for source in read if readers[source] == 1 and not {source, name} & {*outside}]
        if number % 3 == 2 and free:
            over[name] = data.draw(st.sampled_from(free))
            sizes[name] = sizes[over[name]]
            steps.append(
                RowCall(
                    RowKernel.GELU,
                    gelu_launch(1, 16),
                    Dtype.FLOAT16,
                    {str(i): source for i, source in enumerate(read)},
                    {"out": name},
                    over[name],
                )
            )
        elif number % 3:
            steps.append(
                Attention(
                    Shape(Mode.DENSE, Dtype.FLOAT16, 1, 1, 1, 1),
                    {str(i): source for i, source in enumerate(read)},
                    name,
                )
            )
        else:
            steps.append(Subgraph(b"", tuple(read), (name,)))
    tensors = {name: Tensor((size,), TensorProto.UINT8) for name, size in sizes.items()}
    workspace = {number: data.draw(st.integers(0, 3000)) for number in range(1, count, 2)}
    offsets, workspaces, total = Partition(tuple(steps), tensors, {}).memory_layout(outside, workspace)
    assert set(offsets) == set(names) - set(outside)
    assert set(workspaces) == {number for number, size in workspace.items() if size}
    assert all(offsets[name] == offsets[below] for name, below in over.items())
    last = {
        name: max((number for number, read in enumerate(reads) if name in read), default=names.index(name))
        for name in names
    }
    spans = [(at, at + tensors[name].bytes, names.index(name), last[name], name) for name, at in offsets.items()]
    spans += [(at, at + workspace[number], number, number, "") for number, at in workspaces.items()]
    assert all(low % 256 == 0 and high <= total for low, high, *_ in spans)
    for (low, high, first, end, name), (other_low, other_high, other_first, other_end, other) in itertools.combinations(
        spans, 2
    ):
        written_over = over.get(name) == other or over.get(other, "-") == name
        together = first <= other_end and other_first <= end and not written_over
        assert not together or high <= other_low or other_high <= low
