"""VGGT's heads in eight bits: which of their layers are rounded, and how their files shrink."""

import onnx_ir
import pytest

from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.quantize.activation_stats import StatsOutputs
from page4d_export.quantize.calibrate import calibrate
from page4d_export.quantize.stage_graph import Graph
from page4d_export.sample_clip import SampleClip
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from page4d_export.verify import verify
from tests.support.models import config_of, layout_of, lively

HEADS = ("camera", "depth", "points")


@pytest.fixture(scope="module")
def model():
    return lively(config_of("vggt"))


def plan_of(model, precision):
    return ExportPlan.make(model.config, layout_of("vggt", 42, 70), precision)


def test_in_int8_their_linear_layers_are_rounded_and_they_pass_the_gate(model, tmp_path):
    """The camera's blocks, and the projections of depth and points; convolutions are not."""
    plan = plan_of(model, Precision.INT8)
    write_unverified(model, plan, tmp_path)
    tolerance = Precision.INT8.tolerance
    clip = SampleClip.rendered(plan.layout)
    figures = {stage.stage: stage for stage in verify(model, plan, tmp_path / "onnx", clip, tolerance)}
    for entry in read_manifest(tmp_path).stages:
        if entry.kind not in HEADS:
            continue
        files = sum(path.stat().st_size for path in (tmp_path / "onnx").glob(f"{entry.name}.onnx*"))
        # the rest is the graph: constants, and sums and scales of each product
        assert entry.weight_bytes < files < entry.weight_bytes + 700_000, entry.name
        assert entry.calls == (1 if entry.kind == "camera" else 3), "one image a call, so that no image changes another"
        assert all(1e-6 < accuracy.relative_l2 < tolerance for accuracy in figures[entry.name].alone.values())


def test_in_fp8_they_stay_as_they_are(model):
    plan = plan_of(model, Precision.FP8)
    calibration = calibrate(model, plan, SampleClip.rendered(plan.layout), plan.precision.tolerance)
    assert set(calibration.stages) == {entry.name for entry in plan.stages() if entry.kind not in HEADS}


def test_few_tokens_do_not_say_which_channels_go_together(model, tmp_path):
    """The camera head reads one token an image: moments of its inputs would be gigabytes of nothing."""
    plan = plan_of(model, Precision.FLOAT32)
    exporter = OnnxExporter(tmp_path, model.config.head_dim)
    has_moment = {}
    for name in ("camera", "depth"):
        stage = stages_of(model, plan)[name]
        linears = Graph(onnx_ir.load(exporter.write(stage))).linears
        has_moment[name] = [StatsOutputs.of(linear.input, stage.entry.calls).has_moment for linear in linears]
    # four refinements of four blocks: q, k, v, the projection, two layers of the MLP
    assert has_moment == {"camera": [False] * 4 * 4 * 6, "depth": [True] * 4}
