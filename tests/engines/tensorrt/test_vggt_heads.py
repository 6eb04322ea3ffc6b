"""VGGT's heads as TensorRT-RTX builds them on a machine without a GPU: which kernels, and in which types."""

import collections

import msgspec
import pytest

from page4d.errors import AccuracyError
from page4d.manifest import Flavor
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines.tensorrt.builder import BuildOptions, PlanBuilder
from page4d_engines.tensorrt.library import Library
from page4d_engines.tensorrt.plans import PlanBuildRequest


@pytest.fixture(scope="module")
def builder():
    return PlanBuilder(Library.find(Flavor.RTX), BuildOptions(("sm_89", "sm_120")))


@pytest.fixture(scope="module")
def folder(made):
    return made("page4d 2026", "float16").folder


@pytest.mark.parametrize("name", ["depth", "points"])
def test_maps_are_made_by_convolutions_and_resizes_in_16_bits(builder, folder, name):
    """Every convolution and transposed convolution of DPT is a kernel of its own kind, but for the last, of one pixel;
    resizes are layers, and no shape is computed."""
    plan = builder.build(name, folder / "onnx" / f"{name}.onnx", "float16")
    kinds = collections.Counter(layer.kind for layer in plan.layers)
    assert (kinds["correlation"], kinds["deconv"], kinds["gemm"]) == (25, 2, 4)
    assert sum("Resi" in layer.name for layer in plan.layers) >= 5
    tensors = [tensor for layer in plan.layers for tensor in (*layer.inputs, *layer.outputs)]
    assert not {tensor.dtype for tensor in tensors} & {"Int64", "Int32", "Double"}
    convolutions = [layer for layer in plan.layers if layer.kind in ("correlation", "deconv")]
    assert {tensor.dtype for layer in convolutions for tensor in (*layer.inputs, *layer.outputs)} == {"Half"}
    assert {tensor.dtype for tensor in plan.layers[-1].outputs} == {"Float"}, "exponentials do not fit into float16"


def test_the_camera_is_computed_in_float32(builder, folder):
    path = folder / "onnx" / "camera.onnx"
    plan = builder.build("camera", path, "float32")
    products = [layer for layer in plan.layers if layer.kind in ("gemm", "runtime_fusion")]
    assert len(products) > 4 * 4 * 4
    assert {tensor.dtype for layer in products for tensor in layer.outputs} == {"Float"}
    assert len(plan.content) < 2 * path.with_name("camera.onnx.data").stat().st_size, "weights lie in it once"
    with pytest.raises(AccuracyError, match=r"a product of camera is computed in float32"):
        builder.build("camera", path, "float16")


def test_plans_of_a_folder_have_the_heads(folder, tmp_path):
    """A request in float16 takes the camera in float32."""
    manifest = read_manifest(folder)
    stages = tuple(entry for entry in manifest.stages if entry.kind in ("camera", "depth", "points"))
    request = PlanBuildRequest(Library.find(Flavor.RTX), BuildOptions(), Precision.FLOAT16, native=False)
    plans = request.build(folder, msgspec.structs.replace(manifest, stages=stages), tmp_path)
    assert set(plans.stages) == {"camera", "depth", "points"} and plans.kernels is None
    assert all((entry.plugins, entry.fused) == (0, 0) for entry in plans.stages.values())
