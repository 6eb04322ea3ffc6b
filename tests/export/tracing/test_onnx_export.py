"""What is in the ONNX files."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

NARROW = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}


def load(made, stage, **options):
    return onnx.load(made(**options).folder / "onnx" / f"{stage}.onnx")


def types(model):
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in model.graph.initializer
    }


STAGES = {
    "default": ["encoder", "mask_head", "view_sa.0", "view_sa.1", "time_sa.1", "global_sa.1"],
    "memory": ["view_sa.1", "global_sa.1"],
    "dilated": ["time_sa.1", "global_sa.1"],
}
ALL = [(variant, stage) for variant, names in STAGES.items() for stage in names]


@pytest.mark.parametrize(("variant", "stage"), ALL)
def test_files_are_portable(made, variant, stage):
    model = load(made, stage, variant=variant)
    assert {o.domain: o.version for o in model.opset_import}[""] == 20
    onnx.checker.check_model(made(variant).folder / "onnx" / f"{stage}.onnx", full_check=True)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    text = str(model)
    assert "stack_trace" not in text and ".py" not in text and "metadata_props" not in text
    for value in (*model.graph.input, *model.graph.output):
        assert all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim), "fixed shapes"
    entry = made(variant).plan.manifest("").stage(stage)
    assert [value.name for value in model.graph.input] == [spec.binding for spec in entry.inputs]
    assert [value.name for value in model.graph.output] == [spec.binding for spec in entry.outputs]


@pytest.mark.parametrize(("variant", "stage"), ALL)
def test_attention_is_a_node_with_a_function_body(made, variant, stage):
    model = load(made, stage, variant=variant)
    nodes = [node for node in model.graph.node if node.domain == "page4d"]
    expected = {"encoder": 2, "mask_head": 0}.get(stage, 2 if (variant, stage) == ("memory", "global_sa.1") else 1)
    assert len(nodes) == expected
    assert {f.name for f in model.functions} == {node.op_type for node in nodes}
    op = "SegmentAttention" if variant == "dilated" else "BiasedAttention"
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert node.op_type == op and attributes["plugin_namespace"] == b"page4d"
        assert attributes["plugin_version"] == b"1"
    assert not any(node.op_type in ("Softmax", "Attention") for node in model.graph.node)


@pytest.mark.parametrize("precision", list(NARROW))
@pytest.mark.parametrize("stage", STAGES["default"])
def test_sixteen_bit_graphs_are_typed_with_float32_islands(made, stage, precision):
    model = load(made, stage, precision=precision)
    kind = types(model)
    for node in model.graph.node:
        expected = {
            "LayerNormalization": TensorProto.FLOAT,
            "Sigmoid": TensorProto.FLOAT,
            "MatMul": NARROW[precision],
            "Conv": NARROW[precision],
            "Gelu": NARROW[precision],
        }
        if node.op_type in expected:
            assert {kind[name] for name in node.input if name} == {expected[node.op_type]}, (stage, node.op_type)
        if node.op_type == "BiasedAttention":
            assert {kind[name] for name in node.input} == {NARROW[precision]}, "TensorRT fuses a bias of q's type alone"
    for name in (tensor.name for tensor in model.graph.initializer):
        if "lambda" in name or "norm" in name or name.endswith(("alpha", "beta")):
            assert kind[name] == TensorProto.FLOAT, name


@pytest.mark.parametrize(
    ("variant", "stage"), [("default", "global_sa.1"), ("dilated", "global_sa.1"), ("late", "global_sa.1")]
)
def test_indices_are_integers(made, variant, stage):
    model = load(made, stage, variant=variant, precision="float16")
    kind = types(model)
    for node in model.graph.node:
        if node.op_type == "Gather":
            assert kind[node.input[1]] in (TensorProto.INT32, TensorProto.INT64)
        if node.op_type == "TopK":
            chain = {node.output[1]}
            for later in model.graph.node:
                if chain & set(later.input) and later.op_type in ("Add", "Reshape", "Cast", "Mul"):
                    assert kind[later.output[0]] in (TensorProto.INT32, TensorProto.INT64)
                    chain.add(later.output[0])


def test_weights_are_ready_to_multiply(made):
    """No transpose of a weight is left to the engine's start."""
    model = load(made, "global_sa.1", variant="memory")
    weights = {tensor.name for tensor in model.graph.initializer}
    assert not [
        node.op_type for node in model.graph.node if node.op_type in ("Transpose", "Split") and node.input[0] in weights
    ]


def test_stages_of_one_trace_have_their_own_weights(made):
    made_ = made()
    for i in range(2):
        model = onnx.load(made_.folder / "onnx" / f"time_sa.{i}.onnx")
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        block = made_.model.layers[i].time_sa
        np.testing.assert_array_equal(
            arrays["part.block.mlp.fc1.weight/transpose"], block.block.mlp.fc1.weight.T.numpy()
        )
        np.testing.assert_array_equal(arrays["part.lambda_geo_t"], block.lambda_geo_t.numpy())


def test_the_positional_embedding_is_baked_and_images_are_bytes(made):
    made_ = made()
    model = onnx.load(made_.folder / "onnx" / "encoder.onnx")
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layout = made_.plan.layout
    np.testing.assert_array_equal(arrays["position"], made_.model.encoder.position(layout.h, layout.w).numpy())
    assert "encoder.pos_embed" not in arrays
    assert types(model)["images"] == TensorProto.UINT8
    assert not [node.op_type for node in model.graph.node if node.op_type == "Resize"]


def test_large_weights_lie_in_one_file_beside(made):
    folder = made().folder / "onnx"
    assert (folder / "encoder.onnx.data").stat().st_size > 1 << 20
    assert (folder / "encoder.onnx").stat().st_size < 100_000
    assert not (folder / "mask_head.onnx.data").exists()


def test_files_run_without_this_project(made):
    """Plain ONNX Runtime takes the function bodies."""
    made_ = made()
    session = onnxruntime.InferenceSession(made_.folder / "onnx" / "view_sa.1.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    values = {value.name: rng.random(value.shape, np.float32) for value in session.get_inputs()}
    (out,) = session.run(None, values)
    import torch

    from page4d_export import stages

    reference = stages(made_.model, made_.plan.layout)["view_sa.1"].module(
        *(torch.from_numpy(array) for array in values.values())
    )
    np.testing.assert_allclose(out, reference.numpy(), rtol=1e-4, atol=1e-5)
