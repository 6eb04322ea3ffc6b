"""Stages cut at their attentions: run piece by piece they are the stage, and what is passed on has places that do not overlap in time."""

import itertools

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import EXPORTED, config_of, layout_of, lively
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from pieces_on_a_processor import attended

from page4d.accuracy import compare
from page4d.precision import Precision
from page4d_engines.ort_engine import OrtEngine
from page4d_engines.ort_pieces import raw, widen_unsupported
from page4d_engines.pieces import Attention, Cut, Piece, Tensor, cut
from page4d_export.onnx_export import OnnxExporter
from page4d_export.stage import stages
from page4d_plugins.modes import Dtype, Mode
from page4d_plugins.plan import Shape


def loaded(folder, entry):
    path = folder / "onnx" / f"{entry.name}.onnx"
    return onnx.load(path, load_external_data=False), path


def run_pieces(found, values, path):
    """The steps on a processor; a session a piece, its weights and borders fed by name."""
    for name, tensor in found.weights.items():
        border = found.tensors[name]
        values[name] = raw(tensor, path.parent).view(helper.tensor_dtype_to_np_dtype(border.dtype)).reshape(border.shape)
    for step in found.steps:
        if isinstance(step, Attention):
            values[step.out] = attended(step, values).reshape(found.tensors[step.out].shape)
        else:
            session = onnxruntime.InferenceSession(step.content, providers=["CPUExecutionProvider"])
            made = session.run(None, {f"i{number}": values[name] for number, name in enumerate(step.inputs)})
            values |= dict(zip(step.outputs, made, strict=True))
    return values


@pytest.mark.parametrize("variant", EXPORTED)
def test_run_piece_by_piece_a_stage_is_the_stage(made, variant):
    made_ = made(variant, "float16")
    folder, plan = made_.folder, made_.plan
    rng = np.random.default_rng(0)
    for entry in plan.stages():
        model, path = loaded(folder, entry)
        given = {}
        for spec in entry.inputs:
            values = rng.integers(0, 256, spec.shape) if spec.dtype == "uint8" else rng.uniform(0, 1, spec.shape)
            given[spec.binding] = values.astype(spec.dtype)
        found = cut(model)
        made = run_pieces(found, dict(given), path)
        outputs = {spec.binding: np.empty(spec.shape, np.float32) for spec in entry.outputs}
        wide = {name: np.ascontiguousarray(value if value.dtype == np.uint8 else value.astype(np.float32)) for name, value in given.items()}
        OrtEngine(path, rounding=True).bind(wide, outputs)()
        for name, want in outputs.items():
            accuracy = compare(made[name].astype(np.float32), want)
            assert accuracy.nans == 0 and accuracy.relative_l2 < 2 * Precision.FLOAT16.tolerance, f"{entry.name} {name}: {accuracy}"
        assert not any(len(tensor.shape) == 4 and tensor.shape[-2:] == (51, 51) for tensor in found.tensors.values())


def contents(model):
    steps = cut(model).steps
    assert [type(step) for step in steps] == [Piece, *[Attention, Piece] * (len(steps) // 2)], "an attention stands between two pieces"
    return [step.content for step in steps if isinstance(step, Piece)]


def test_equal_blocks_are_one_piece(made, tmp_path):
    """All inner blocks of an encoder, all stages of a kind: sessions are few, whatever the depth."""
    config = config_of("default", encoder_depth=4)
    stage = stages(lively(config), layout_of("default", 28, 42), Precision.FLOAT16)["encoder"]
    encoder = contents(onnx.load(OnnxExporter(tmp_path, config.head_dim).write(stage), load_external_data=False))
    assert len(encoder) == 5 and len(set(encoder)) == 3
    made_ = made("default", "float16")
    found = {entry.name: contents(loaded(made_.folder, entry)[0]) for entry in made_.plan.stages()}
    assert found["time_sa.0"] == found["time_sa.1"] and found["view_sa.0"] != found["view_sa.1"], "the first makes two streams of one"


def test_heads_are_read_and_written_where_linear_layers_left_them(made):
    made_ = made("default", "float16")
    for entry in made_.plan.stages():
        found = cut(loaded(made_.folder, entry)[0])
        for step in found.steps:
            if isinstance(step, Attention):
                Z, A, n, D = step.shape.Z, step.shape.A, step.shape.n, step.shape.D
                assert step.shape.q == step.shape.out == (n * A * D, D, A * D) and found.tensors[step.out].shape == (Z, n, A, D)


def test_bfloat16_asks_for_nothing_that_onnx_runtime_lacks(made):
    made_ = made("default", "bfloat16")
    for entry in made_.plan.stages():
        model, _ = loaded(made_.folder, entry)
        before = sum(node.op_type in ("Conv", "Gelu") for node in model.graph.node)
        widen_unsupported(model.graph)
        cut_model = cut(model)
        seen = 0
        for step in cut_model.steps:
            if isinstance(step, Piece):
                proto = onnx.load_from_string(step.content)
                onnx.checker.check_model(proto, full_check=True)
                types = {value.name: value.type.tensor_type.elem_type for value in onnx.shape_inference.infer_shapes(proto).graph.value_info}
                for node in proto.graph.node:
                    if node.op_type in ("Conv", "Gelu"):
                        seen += 1
                        assert types[node.input[0]] == types[node.output[0]] == TensorProto.FLOAT
            else:
                assert step.shape.dtype is Dtype.BFLOAT16
        assert seen == before


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_places_do_not_overlap_in_time(data):
    count = data.draw(st.integers(1, 8))
    names = [f"t{number}" for number in range(count)]
    tensors = {name: Tensor((data.draw(st.integers(1, 3000)),), TensorProto.UINT8) for name in names}
    steps, made = [], []
    for number, name in enumerate(names):
        read = data.draw(st.lists(st.sampled_from(made), unique=True)) if made else []
        steps.append(
            Attention(Shape(Mode.DENSE, Dtype.FLOAT16, 1, 1, 1, 1), {str(i): one for i, one in enumerate(read)}, name)
            if number % 2
            else Piece(b"", tuple(read), (name,))
        )
        made.append(name)
    workspace = {number: data.draw(st.integers(0, 3000)) for number in range(1, count, 2)}
    outside = data.draw(st.lists(st.sampled_from(names), unique=True))
    places, workspaces, total = Cut(tuple(steps), tensors, {}).places(outside, workspace)
    assert set(places) == set(names) - set(outside) and set(workspaces) == {number for number, size in workspace.items() if size}
    spans = []
    for name, at in places.items():
        born = names.index(name)
        readers = [number for number, step in enumerate(steps) if name in (step.inputs.values() if isinstance(step, Attention) else step.inputs)]
        spans.append((at, at + tensors[name].bytes, born, max(readers, default=born)))
    spans += [(at, at + workspace[number], number, number) for number, at in workspaces.items()]
    assert all(low % 256 == 0 and high <= total for low, high, _, _ in spans)
    for one, other in itertools.combinations(spans, 2):
        together = one[2] <= other[3] and other[2] <= one[3]
        assert not together or one[1] <= other[0] or other[1] <= one[0]
