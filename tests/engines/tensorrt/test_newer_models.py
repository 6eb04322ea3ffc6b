"""Depth Anything 3 and Pi3X as TensorRT-RTX builds them on a machine without a GPU: which kernels, in which types."""

import collections

import msgspec
import pytest

from page4d import Layout
from page4d.errors import AccuracyError
from page4d.manifest import Flavor
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines.tensorrt.builder import BuildOptions, PlanBuilder
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.plans import PlanBuildRequest
from page4d_export import stages
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.da3.models import model_of


@pytest.fixture(scope="module")
def builder():
    return PlanBuilder(Library.find(Flavor.RTX), BuildOptions(("sm_89", "sm_120")))


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """The float16 file of a stage of a small model."""

    def write(model, stage):
        exporter = OnnxExporter(tmp_path_factory.mktemp("stage"), model_of(model).config.head_dim)
        return exporter.write(stages(model_of(model), Layout(1, 3, 56, 70), "float16", head_images=1)[stage])

    return write


def types_of(layers, way):
    return {tensor.dtype for layer in layers for tensor in getattr(layer, way)}


@pytest.mark.parametrize(
    ("model", "stage", "convolutions", "transposed"),
    [("pi3x", "points", 17, 3), ("da3", "depth", 26, 2), ("mono", "depth", 26, 2)],
)
def test_maps_are_made_by_convolutions_in_16_bits(builder, file_of, model, stage, convolutions, transposed):
    """A repeated border costs no other kernel, and no shape is computed; exponentials are float32."""
    plan = builder.build(stage, file_of(model, stage), "float16")
    kinds = collections.Counter(layer.kind for layer in plan.layers)
    assert (kinds["correlation"], kinds["deconv"]) == (convolutions, transposed)
    assert not types_of(plan.layers, "outputs") & {"Int64", "Int32", "Double"}
    maps = [layer for layer in plan.layers if layer.kind in ("correlation", "deconv")]
    assert types_of(maps, "inputs") | types_of(maps, "outputs") == {"Half"}
    assert types_of(plan.layers[-1:], "outputs") == {"Float"}


@pytest.mark.parametrize(("model", "stage"), [("pi3x", "metric"), ("da3", "camera"), ("known", "camera_encoder")])
def test_cameras_and_metres_are_computed_in_float32(builder, file_of, model, stage):
    path = file_of(model, stage)
    plan = builder.build(stage, path, "float32")
    products = [layer for layer in plan.layers if layer.kind in ("gemm", "runtime_fusion")]
    assert products and types_of(products, "outputs") == {"Float"}
    with pytest.raises(AccuracyError, match=f"a product of {stage} is computed in float32"):
        builder.build(stage, path, "float16")


@pytest.mark.parametrize("variant", ["da3", "pi3x"])
def test_a_folder_is_built_whole(made, tmp_path, variant):
    """The stages of both precisions, with the attention plugin where there is attention."""
    folder = made(variant, "float16").folder
    manifest = read_manifest(folder)
    kept = ("encoder", "view_sa.1", "points", "camera", "depth", "metric")
    entries = tuple(entry for entry in manifest.stages if entry.name in kept)
    request = PlanBuildRequest(Library.find(Flavor.RTX), BuildOptions(), Precision.FLOAT16, native=False)
    plans = request.build(folder, msgspec.structs.replace(manifest, stages=entries), tmp_path)
    assert set(plans.stages) == {entry.name for entry in entries}
    assert plans.stages["view_sa.1"].plugins == 1
    assert all(plans.stages[name].plugins == 0 for name in ("depth", "metric") if name in plans.stages)
