"""Depth Anything 3 and Pi3X as they are exported: sizes of the published models, chunks, graphs, manifests."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from page4d import Layout, ModelConfig
from page4d.accuracy import compare
from page4d.errors import UsageError
from page4d.manifest import CONSTANTS, PointsFrame, Unit
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d.published import PoseDirection
from page4d_engines import Pipeline
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export import stages
from page4d_export.exporter import write_verified
from page4d_export.plan.da3_cost import CameraEncoderCost
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.plan.pi3x_cost import ConvHeadCost, MetricCost
from page4d_export.sample_clip import SampleClip
from page4d_export.stage_runner import ReferenceChain, run_engine
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.da3.models import cameras_of, model_of
from tests.support.examples import examples

IMAGE = Layout(1, 1, 518, 518)
HEADS = {"da3": ("depth",), "mono": ("depth",), "pi3x": ("points", "confidence")}  # those that are called in chunks


def plan_of(name, layout=IMAGE, precision=Precision.FLOAT32, **options):
    return ExportPlan.make(ModelConfig.preset(name, **options), layout, precision)


# ---- the plan


@pytest.mark.parametrize(
    ("preset", "backbone", "several", "depth", "camera"),
    [
        ("da3-small", 93.4, 174.1, 22.6, 0.002),
        ("da3-base", 303.1, 464.6, 80.6, 0.009),
        ("da3-large", 1013.6, 1444.1, 298.5, 0.017),
        ("da3-metric", 1013.6, 1013.6, 310.4, None),
    ],
)
def test_gflop_of_the_published_sizes(preset, backbone, several, depth, camera):
    """Of one image at 518 x 518, alone and among eight."""
    for V, expected in ((1, backbone), (8, several)):
        flop = {
            entry.name: entry.flop * entry.calls / V / 1e9 for entry in plan_of(preset, Layout(1, V, 518, 518)).stages()
        }
        assert flop.pop("depth") == pytest.approx(depth, abs=0.06)
        assert flop.pop("camera", None) == (None if camera is None else pytest.approx(camera, abs=0.0005))
        assert sum(flop.values()) == pytest.approx(expected, abs=0.06)


def test_parameters_of_the_published_sizes():
    small = {entry.name: entry.weight_bytes // 4 for entry in plan_of("da3-small").stages()}
    assert small["camera"] == 1_188_105
    assert CameraEncoderCost(ModelConfig.preset("da3-small"), Precision.FLOAT32).parameters == 7_178_496
    config = ModelConfig.preset("pi3x")
    points, confidence = (ConvHeadCost(config, IMAGE, Precision.FLOAT32, outputs) for outputs in ((2, 1), (1,)))
    assert (points.parameters, confidence.parameters) == (8_230_435, 8_211_329)
    assert points.flop(1).total / 1e9 == pytest.approx(200.6, abs=0.05)
    assert confidence.flop(1).total / 1e9 == pytest.approx(190.4, abs=0.05)
    metric = MetricCost(config)
    assert metric.parameters == 18_127_872 + 2048 + 513, "with the token and the last layer"
    assert metric.flop(1, 1374).total / 1e9 == pytest.approx(10.1, abs=0.05)


@pytest.mark.parametrize(
    ("preset", "options", "direction", "unit", "frame"),
    [
        ("da3-small", {}, PoseDirection.CAMERA_TO_WORLD, None, None),
        ("da3-small", {"predictions": ("depth",)}, None, None, None),
        ("da3-mono", {}, None, None, None),
        ("da3-metric", {}, None, Unit.METRES, None),
        ("pi3x", {}, None, Unit.METRES, PointsFrame.CAMERA),
        ("pi3x", {"predictions": False}, None, None, None),
        ("vggt", {}, None, None, PointsFrame.WORLD),
    ],
)
def test_a_manifest_says_what_the_numbers_are(preset, options, direction, unit, frame):
    manifest = plan_of(preset, **options).manifest("")
    assert (manifest.pose_direction, manifest.unit, manifest.points_frame) == (direction, unit, frame)
    assert manifest.layout.registers == (0 if preset.startswith("da3") else 4)


@pytest.mark.parametrize(
    ("options", "first", "select"),
    [
        ({}, "encoder", True),
        ({"reference_view": "first"}, "encoder", False),
        ({"known_cameras": True}, "camera_encoder", False),
    ],
)
def test_what_tells_a_view_apart(options, first, select):
    plan = plan_of("da3-small", Layout(1, 4, 28, 28), **options)
    assert plan.stages()[0].name == first
    outputs = [spec.name for spec in plan.manifest("").stage("encoder").outputs]
    assert outputs == ["tokens", *(["select"] if select else [])]
    assert plan.manifest("").constants == (() if first == "camera_encoder" else ("special",))


def test_a_model_that_sees_images_alone_needs_its_head():
    with pytest.raises(UsageError, match=r"without its heads da3-mono gives nothing\s+got:\s+predictions = \(\)"):
        plan_of("da3-mono", predictions=())


def test_head_images_are_those_of_a_call():
    for preset, kinds in (("da3-small", {"depth"}), ("da3-mono", {"depth"}), ("pi3x", {"points", "confidence"})):
        plan = ExportPlan.make(
            ModelConfig.preset(preset), Layout(1, 6, 28, 28), Precision.FLOAT32, encoder_images=3, head_images=2
        )
        calls = {entry.name: entry.calls for entry in plan.stages() if entry.calls > 1}
        assert calls == {"encoder": 2, **dict.fromkeys(kinds, 3)}


# ---- the stages are the model


@examples(9)
@given(
    name=st.sampled_from(list(HEADS)),
    V=st.integers(1, 4),
    B=st.integers(1, 2),
    h=st.integers(1, 4),
    w=st.integers(1, 4),
    data=st.data(),
)
def test_chunks_are_the_whole(name, V, B, h, w, data):
    """In float64, on grids of odd sizes and of one row too, for any number of images of a call."""
    model = model_of(name).double()
    try:
        layout = model.config.settled(Layout(1, V, 14 * h, 14 * w, B))
        images = data.draw(st.sampled_from([n for n in range(1, V * B + 1) if V * B % n == 0]))
        whole, chunks = (stages(model, layout, head_images=n) for n in (V * B, images))
        for head in HEADS[name]:
            values = [torch.randn(spec.shape, dtype=torch.float64) for spec in whole[head].inputs]
            with torch.inference_mode():
                expected = whole[head].module(*values)
                parts = [
                    chunks[head].module(*(value[i : i + images] for value in values)) for i in range(0, V * B, images)
                ]
            for number in range(len(whole[head].outputs)):
                alone = [part[number] if isinstance(part, tuple) else part for part in parts]
                reference = expected[number] if isinstance(expected, tuple) else expected
                torch.testing.assert_close(torch.cat(alone), reference, atol=1e-12, rtol=1e-12)
    finally:
        model.float()


# ---- the graphs


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of some stages: (model, precision, layout, stages) -> (folder, their entries)."""

    def write(name, precision, layout, names):
        folder = tmp_path_factory.mktemp(name)
        exporter = OnnxExporter(folder, model_of(name).config.head_dim)
        entries = {}
        for stage in stages(model_of(name), layout, precision, head_images=1).values():
            if stage.name in names:
                exporter.write(stage)
                entries[stage.name] = stage.entry
        return folder, entries

    return write


@pytest.mark.parametrize(
    "precision", [Precision.FLOAT16, pytest.param(Precision.BFLOAT16, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("da3", ("encoder", "camera", "depth")),
        ("known", ("camera_encoder",)),
        ("mono", ("encoder", "depth")),
        ("pi3x", ("points", "metric")),
    ],
)
def test_sixteen_bits_are_within_the_gates_tolerance(written, name, names, precision):
    layout = Layout(1, 2, 42, 70)  # grids of odd sizes
    model = model_of(name)
    folder, entries = written(name, precision, layout, names)
    plan = ExportPlan.make(model.config, layout, Precision.FLOAT32, head_images=1)
    chain = ReferenceChain(model, plan, SampleClip.rendered(layout))
    for entry in plan.stages():
        inputs, expected = chain.inputs(entry), chain.run(entry)
        if entry.name not in entries:
            continue
        engine = OrtEngine(folder / f"{entry.name}.onnx", rounding=True)
        for output, result in run_engine(engine, entries[entry.name], inputs).items():
            accuracy = compare(result, expected[output], output)
            assert accuracy.relative_l2 < precision.tolerance and not accuracy.nans, (entry.name, output, accuracy)


def test_islands_and_operators(written):
    """Float32: norms over maps, exponentials, whatever makes cameras and metres. Convolutions in 16 bits; no shape is
    computed."""
    layout = Layout(1, 1, 42, 70)
    float32 = onnx.TensorProto.FLOAT
    for name, names in (("pi3x", ("points", "metric")), ("da3", ("camera", "depth")), ("known", ("camera_encoder",))):
        folder, entries = written(name, Precision.FLOAT16, layout, names)
        for stage in names:
            graph = onnx.load(folder / f"{stage}.onnx").graph
            kinds = [node.op_type for node in graph.node]
            assert not {"Sin", "Cos", "Range", "Shape", "GroupNormalization"} & set(kinds), (stage, kinds)
            types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
            wide = {"Exp", "LayerNormalization", "InstanceNormalization", "Softmax"}
            if stage in ("camera", "metric", "camera_encoder"):
                wide |= {"MatMul", "Gemm"}
            for node in graph.node:
                assert node.op_type not in wide or types[node.output[0]] == float32, (stage, node.op_type)
                assert node.op_type not in ("Conv", "ConvTranspose") or types[node.output[0]] != float32
            if stage == "points":
                assert (kinds.count("ConvTranspose"), kinds.count("Resize")) == (3, 0)
            count = sum(int(np.prod(tensor.dims)) for tensor in graph.initializer)
            itemsize = 4 if stage in ("camera", "metric", "camera_encoder") else 2
            assert count * itemsize == pytest.approx(entries[stage].weight_bytes, rel=0.15), stage


# ---- the folder


@pytest.mark.parametrize("name", ["da3", "known"])
def test_a_verified_folder_runs_as_the_model(tmp_path, name):
    """With several views, so that a reference view is chosen between the stages, or with the cameras of the clip."""
    model, layout = model_of(name), Layout(1, 3, 28, 42)
    plan = ExportPlan.make(model.config, layout, Precision.FLOAT32)
    manifest = write_verified(model, plan, tmp_path / "engines")
    assert all(accuracy.relative_l2 < 1e-5 for accuracy in manifest.verification.chain.values())
    assert (tmp_path / "engines" / CONSTANTS).exists() == (name == "da3")
    with safe_open(tmp_path / "engines" / manifest.golden.inputs, "numpy") as golden:
        assert ("cameras" in set(golden.keys())) == (name == "known")
    assert read_manifest(tmp_path / "engines").layout == dataclasses.replace(layout, registers=0)
    images = SampleClip.rendered(layout).values["images"]
    cameras = cameras_of(3) if name == "known" else None
    result, expected = Pipeline.load(tmp_path / "engines").run(images, cameras=cameras), model(images, cameras=cameras)
    for field in ("depth", "depth_confidence", "camera", "intrinsics"):
        got, reference = getattr(result, field), getattr(expected, field).double().numpy()
        assert compare(got, reference).relative_l2 < 1e-5, field
