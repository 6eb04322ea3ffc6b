"""VGGT's heads as stages: what they cost, and that chunks of images, precisions and the graph change no number."""

import dataclasses
import sys

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from page4d import Layout, ModelConfig
from page4d.accuracy import compare
from page4d.config import Head
from page4d.errors import UsageError
from page4d.manifest import PointsFrame
from page4d.precision import Precision
from page4d.system.memory import peak_memory, reset_peak_memory, resident_memory
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export import stages
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.plan.head_cost import CameraCost, DptCost
from page4d_export.stage_runner import run_engine
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.examples import examples
from tests.support.models import SMALL, lively

HEADS = (Head.CAMERA, Head.DEPTH, Head.POINTS)


def config(**options):
    return ModelConfig.preset("vggt", **{**SMALL, "depth": 4, "encoder_depth": 1, **options})


@pytest.fixture(scope="module")
def model():
    return lively(config())


def pairs(model, layout, seed=0, dtype=torch.float32):
    """Kept layers by name, of any values: the heads norm them."""
    generator = torch.Generator().manual_seed(seed)
    shape = layout.layer_shape(2 * model.config.width)
    return {
        f"layers.{layer}": torch.randn(shape, generator=generator, dtype=dtype) for layer in model.config.head_layers
    }


def run(stage, values):
    """A stage in PyTorch, all calls, by the names of its outputs, in the shape of all images."""
    results = []
    for call in range(stage.entry.calls):
        inputs = []
        for spec in stage.inputs:
            size = int(np.prod(spec.shape))
            inputs.append(values[spec.name].flatten()[call * size : (call + 1) * size].reshape(spec.shape))
        with torch.inference_mode():
            out = stage.module(*inputs)
        results.append(out if isinstance(out, tuple) else (out,))
    return {spec.name: torch.cat(parts) for spec, parts in zip(stage.outputs, zip(*results, strict=True), strict=True)}


def of_model(model, layout, values):
    """The heads as the model calls them: all images at once."""
    batched = {name: value if layout.B > 1 else value[None] for name, value in values.items()}
    outputs = {}
    for head in HEADS:
        inputs = [batched[f"layers.{layer}"] for layer in model.config.layers_of(head)]
        out = getattr(model, head)(*inputs, layout=layout)
        outputs |= {head: out} if head == "camera" else dict(zip((head, f"{head}_confidence"), out, strict=True))
    return outputs


# ---- the plan


def test_the_heads_of_the_published_size():
    """Parameters as in the published files; FLOP of one image at 518 x 518."""
    layout = Layout(1, 1, 518, 518)
    vggt = ModelConfig.preset("vggt")
    camera = CameraCost(vggt, Precision.FLOAT32)
    depth, points = (DptCost(vggt, layout, Precision.FLOAT32, numbers) for numbers in (2, 4))
    assert (camera.parameters, depth.parameters, points.parameters) == (216_174_610, 32_654_562, 32_654_628)
    plan = ExportPlan.make(vggt, layout, Precision.FLOAT32)
    flop = {entry.name: entry.flop for entry in plan.stages()}
    assert flop["camera"] / 1e9 == pytest.approx(1.73, abs=0.005)
    assert flop["depth"] / 1e9 == pytest.approx(298.5, abs=0.05)
    assert flop["points"] / 1e9 == pytest.approx(298.5, abs=0.1)
    entries = {entry.name: entry for entry in plan.stages()}
    assert entries["camera"].weight_bytes == 4 * 216_174_610, "stored once, though it runs four times"
    assert entries["depth"].largest == 518 * 518 * 128
    sixteen = {entry.name: entry for entry in ExportPlan.make(vggt, layout, Precision.FLOAT16).stages()}
    assert sixteen["camera"].weight_bytes == 4 * 216_174_610, "float32 in every precision"
    assert sixteen["depth"].weight_bytes == 2 * 32_654_562 + 2 * 2 * 2048, "but for its norm"


@pytest.mark.parametrize(
    ("T", "height", "width", "precision", "images"),
    [
        (8, 518, 518, Precision.FLOAT32, 1),
        (8, 350, 518, Precision.FLOAT16, 1),  # 925 patches
        (20, 280, 280, Precision.FLOAT16, 2),  # 400
        (9, 280, 280, Precision.FLOAT32, 3),
        (8, 28, 42, Precision.FLOAT32, 8),
        (8, 28, 42, Precision.INT8, 1),
        (2, 1400, 1400, Precision.FLOAT32, 1),
    ],
)
def test_images_of_a_call(T, height, width, precision, images):
    """As many as have no more patches than one image of 518 x 518; in int8 one, so that no image changes another."""
    plan = ExportPlan.make(config(), Layout(T, 1, height, width), precision)
    assert plan.head_images == images
    for entry in plan.stages()[-2:]:
        assert entry.calls == T // images and {spec.shape[0] for spec in (*entry.inputs, *entry.outputs)} == {images}


def test_images_of_a_call_divide_the_clip():
    with pytest.raises(
        UsageError, match=r"--head-images does not divide the clip's 6 images\s+got:\s+4\s+.*1, 2, 3, 6"
    ):
        ExportPlan.make(config(), Layout(6, 1, 28, 28), Precision.FLOAT32, head_images=4)


@pytest.mark.parametrize("heads", [(), ("camera",), ("depth",), ("camera", "depth"), HEADS])
def test_a_plan_has_the_stages_of_the_heads(heads):
    plan = ExportPlan.make(config(predictions=heads), Layout(2, 1, 28, 28), Precision.FLOAT32)
    assert [entry.name for entry in plan.stages() if entry.kind in HEADS] == list(heads)
    read = {spec.name for entry in plan.stages() for spec in entry.inputs if spec.name.startswith("layers.")}
    assert {f"layers.{kept.layer}" for kept in plan.gathered()} == read
    assert len(read) == (4 if {"depth", "points"} & set(heads) else len(heads))
    frame = PointsFrame.WORLD if "points" in heads else None
    assert plan.manifest("").points_frame is frame


# ---- the stages are the model


@examples(12)
@given(
    T=st.integers(1, 4),
    B=st.integers(1, 2),
    h=st.integers(1, 5),
    w=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    data=st.data(),
)
def test_chunks_are_the_whole(T, B, h, w, seed, data):
    """In float64, on grids of odd sizes and of one row too, for any number of images of a call."""
    wide = lively(config()).double()
    layout = Layout(T, 1, 14 * h, 14 * w, B)
    images = data.draw(st.sampled_from([n for n in range(1, layout.images + 1) if layout.images % n == 0]))
    values = pairs(wide, layout, seed, torch.float64)
    expected = of_model(wide, layout, values)
    for name, stage in stages(wide, layout, head_images=images).items():
        if name in HEADS:
            for output, result in run(stage, values).items():
                torch.testing.assert_close(result.reshape(expected[output].shape), expected[output], atol=1e-12, rtol=0)


# ---- the graphs


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The heads' files, and their entries: (precision, layout, images of a call, which heads) -> (folder, entries)."""

    def make(precision, layout, images=1, names=HEADS):
        folder = tmp_path_factory.mktemp("heads")
        exporter = OnnxExporter(folder, model.config.head_dim)
        entries = {}
        for name, stage in stages(model, layout, precision, head_images=images).items():
            if name in names:
                exporter.write(stage)
                entries[name] = stage.entry
        return folder, entries

    return make


LAYOUT = Layout(2, 1, 42, 70)  # grids of odd sizes: the coarsest map has 2 x 3 places of 3 x 5


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.BFLOAT16], ids=str)
def test_engines_give_what_the_model_gives(model, exported, precision):
    """16-bit engines with every result rounded as their graph types it: within the gate's tolerance."""
    folder, entries = exported(precision, LAYOUT)
    values = pairs(model, LAYOUT)
    expected = of_model(model, LAYOUT, values)
    arrays = {name: value.numpy() for name, value in values.items()}
    for name, entry in entries.items():
        engine = OrtEngine(folder / f"{name}.onnx", rounding=precision.has_16_bits)
        for output, result in run_engine(engine, entry, arrays).items():
            accuracy = compare(result, expected[output].numpy())
            assert accuracy.relative_l2 < precision.tolerance and not accuracy.nans, (name, output, accuracy)


def test_what_is_in_the_files(exported):
    """The trunk's weights once, though it runs four times; embeddings as their halves; resizes and transposed
    convolutions as the operators that runtimes have kernels for; norms, exponentials and the camera in float32."""
    layout = dataclasses.replace(LAYOUT, T=1)
    folder, entries = exported(Precision.FLOAT16, layout)
    for name, entry in entries.items():
        graph = onnx.load(folder / f"{name}.onnx").graph
        sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
        count = sum(sizes.values())
        weights = 4 if name == "camera" else 2
        assert count * weights == pytest.approx(entry.weight_bytes, rel=0.02), name
        kinds = [node.op_type for node in graph.node]
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        for node in graph.node:
            if node.op_type in ("Exp", "Tanh", "LayerNormalization", "Softmax"):
                assert types[node.output[0]] == onnx.TensorProto.FLOAT, (name, node.op_type)
        if name == "camera":
            assert kinds.count("Softmax") == 4 * 4 and not {"Sin", "Cos"} & set(kinds)
            continue
        assert (kinds.count("ConvTranspose"), kinds.count("Resize"), kinds.count("MatMul")) == (2, 5, 4)
        assert not {"Sin", "Cos", "Range", "Shape", "Sign"} & set(kinds), "all of a fixed shape is folded"
        map_size = layout.H * layout.W
        constants = {key: size for key, size in sizes.items() if not key.startswith("part.")}
        assert max(constants.values()) < 16 * map_size, "no embedding of a whole map"


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.BFLOAT16], ids=str)
def test_embeddings_of_any_size_are_constants(exported, precision):
    """PyTorch computes them in float64, which engines do not have; its exporter folds up to 8192 numbers alone."""
    folder, _ = exported(precision, Layout(1, 1, 14, 1036), names=("depth", "points"))
    for name in ("depth", "points"):
        graph = onnx.load(folder / f"{name}.onnx").graph
        types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        assert onnx.TensorProto.DOUBLE not in types.values()
        embeddings = [tensor for tensor in graph.initializer if tuple(tensor.dims) in ((16, 1, 1036), (1, 16, 1, 1036))]
        kind = onnx.TensorProto.FLOAT if precision is Precision.FLOAT32 else onnx.TensorProto.BFLOAT16
        assert [tensor.data_type for tensor in embeddings] == [kind]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone counts the peak anew")
def test_memory_does_not_grow_with_the_clip(model, exported):
    """One image a call: six images take no more than one did, beside what they are given and give."""
    short, long = (Layout(T, 1, 350, 518) for T in (1, 6))
    folder, entries = exported(Precision.FLOAT32, short, names=("depth",))
    entry = entries["depth"]
    engine = OrtEngine(folder / "depth.onnx")
    for _ in range(2):  # ONNX Runtime's arena grows in the first calls
        run_engine(engine, entry, {name: value.numpy() for name, value in pairs(model, short).items()})
    six = {name: value.numpy() for name, value in pairs(model, long).items()}
    plan = ExportPlan.make(model.config, long, Precision.FLOAT32)
    reset_peak_memory()
    before = resident_memory()
    outputs = run_engine(engine, next(entry for entry in plan.stages() if entry.name == "depth"), six)
    grown = peak_memory() - before - sum(output.nbytes for output in outputs.values())
    assert grown < 4 * entry.largest, "less than one more of its largest map"
