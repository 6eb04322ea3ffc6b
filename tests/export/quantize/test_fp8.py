"""fp8: linear layers of E4M3 values with one scale per tensor, measured on frames.

On a CPU they compute the values that the graph states; in TensorRT they are FP8 products."""

import json
import math

import ml_dtypes
import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from page4d.accuracy import compare
from page4d.errors import AccuracyError, EngineError, UsageError
from page4d.manifest import Flavor
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.tensorrt.builder import BuildOptions, PlanBuilder, fp8_products
from page4d_engines.tensorrt.layers import Layer, Tensor, check
from page4d_engines.tensorrt.plans import PlanBuildRequest, library_for
from page4d_export.exporter import write_verified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.quantize import calibrate as calibration
from page4d_export.quantize import fp8
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.fp8 import error, rounded, scale_of
from page4d_export.sample_clip import SampleClip
from tests.support.commands import inside
from tests.support.examples import examples
from tests.support.exports import verified
from tests.support.linear_block import block, observe, put, quantized, run, without_means
from tests.support.models import config_of, layout_of, lively, takes_keypoints

EVERY_VALUE = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
EVERY_VALUE = np.unique(EVERY_VALUE[np.isfinite(EVERY_VALUE)])

# ---- the pieces


@examples(200)
@given(st.floats(1e-30, 60000), st.sampled_from([1.0, 2.0]))
def test_a_scale_is_the_least_power_of_two_that_holds_all(largest, room):
    scale = scale_of(largest, room)
    assert math.frexp(scale)[0] == 0.5 and float(np.float16(scale)) == scale
    assert largest * room <= 448 * scale
    assert scale == 2.0**-14 or largest * room > 448 * scale / 2


def test_nothing_has_scale_1():
    assert scale_of(0.0) == 1.0


@examples(100)
@given(st.integers(1, 50), st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
def test_a_value_is_rounded_to_the_nearest(count, size, seed):
    exact = np.random.default_rng(seed).normal(0, size, count)
    scale = scale_of(float(np.abs(exact).max()))
    distance = np.abs(exact[:, None] - EVERY_VALUE * scale).min(1)
    np.testing.assert_allclose(np.abs(rounded(exact, scale) - exact), distance, rtol=1e-5, atol=1e-9 * size)


def test_what_other_frames_bring():
    """Twice as large as anything that was measured is held; beyond, it is cut off and no NaN."""
    rng = np.random.default_rng(0)
    x, exact = rng.normal(0, 1, (200, 64)), rng.normal(0, 1, (64, 32))
    seen = Observed(x.mean(0), x.min(0), x.max(0))
    usual, twice, far = (error(x * factor, exact, seen, False) for factor in (1, 2, 100))
    assert 0.01 < usual < 0.04 and 0.01 < twice < 0.04 and 0.5 < far < 1


def test_an_outlier_costs_little():
    """Unlike in int8: the spacing of values grows with them."""
    rng = np.random.default_rng(0)
    x, exact = rng.normal(0, 1, (300, 64)), rng.normal(0, 1, (64, 32))
    calm = error(x, exact, Observed(x.mean(0), x.min(0), x.max(0)), True)
    x[7, 5] = 300
    assert error(x, exact, Observed(x.mean(0), x.min(0), x.max(0)), True) < 1.5 * calm


# ---- one block, built by hand


def test_shifts_alone_change_nothing(tmp_path):
    """Weights that 8 bits hold exactly, every layer left as it is: the same function, the mean in other places."""
    model, x = block()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/transpose"):
            exact = numpy_helper.to_array(tensor).astype(np.float64)
            put(model, tensor.name, rounded(exact, scale_of(float(np.abs(exact).max()))))
    expected, seen, _ = observe(model, x, tmp_path)
    before = [node.op_type for node in model.graph.node]
    quantized(fp8, model, seen, floating=range(6))
    assert [node.op_type for node in model.graph.node] == before
    assert compare(run(model, x, tmp_path)["out"], expected).relative_l2 < 2e-6


@pytest.mark.parametrize("outlier", [1.0, 8.0])
def test_a_block_in_fp8(tmp_path, outlier):
    model, x = block(rows=200, outlier=outlier)
    expected, seen, _ = observe(model, x, tmp_path)
    quantized(fp8, model, seen)
    onnx.checker.check_model(model)
    assert 1e-3 < compare(run(model, x, tmp_path)["out"], expected).relative_l2 < 5e-2
    types = [node.op_type for node in model.graph.node]
    assert types.count("MatMul") == len(fp8_products(model)) == 6
    assert types.count("QuantizeLinear") == 4, "q, k and v read the same values"
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    assert len(weights) == 6 and all(tensor.data_type == TensorProto.FLOAT8E4M3FN for tensor in weights)


def test_products_are_what_a_naive_twin_computes(tmp_path):
    """In float64, with the nearest of all 254 values looked up for each."""
    model, x = block(rows=40)
    _, seen, _ = observe(model, x, tmp_path)
    floats = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    quantized(fp8, model, without_means(seen), floating=[0, 1, 2, 3])
    outputs = run(model, x, tmp_path, [("mlp.fc1.weight.sum", 512), ("norm2.out", 128)])
    scales = {
        tensor.name.removesuffix("/scale"): float(numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
        if tensor.name.endswith("/scale")
    }

    def nearest(name, values):
        flat = values.reshape(-1) / scales[name]
        return (EVERY_VALUE[np.abs(flat[:, None] - EVERY_VALUE).argmin(1)] * scales[name]).reshape(values.shape)

    source, matrix = "norm2.out", "b.mlp.fc1.weight/transpose"
    product = nearest(source, outputs[source][0].astype(np.float64)) @ nearest(matrix, floats[matrix])
    expected = (product + floats["b.mlp.fc1.weight.bias"]).astype(np.float32)
    assert compare(outputs["mlp.fc1.weight.sum"][0], expected).relative_l2 < 1e-5


# ---- whole models


@pytest.fixture(scope="module")
def eight(shared):
    """An engine folder in fp8, verified."""
    return verified("fp8", shared)


def test_the_exported_model(eight):
    manifest = read_manifest(eight.folder)
    assert manifest.precision == "fp8" and manifest.encoder_images > 1
    assert manifest.stage("view_sa.0").outputs[0].dtype == "float16"
    for entry in manifest.stages:
        for accuracy in entry.accuracy.values():
            assert accuracy.relative_l2 < Precision.FP8.tolerance
    blocks = [entry for entry in manifest.stages if entry.kind != "mask_head"]
    errors = [accuracy.relative_l2 for entry in blocks for accuracy in entry.accuracy.values()]
    assert min(errors) > 3e-3, "something was quantised"
    half = eight.plan.in_precision(Precision.FLOAT16).manifest("")
    for entry in blocks:
        on_disk = sum(file.stat().st_size for file in (eight.folder / "onnx").glob(f"{entry.name}.onnx*"))
        assert entry.weight_bytes < (0.65 if entry.kind == "encoder" else 0.52) * half.stage(entry.name).weight_bytes
        assert entry.weight_bytes < on_disk < entry.weight_bytes + 150_000, "and the graph"


def test_means_are_taken_out_behind_the_casts_of_16_bits(eight):
    """A norm computes in float32; its result becomes float16 before a layer reads it."""
    graph = onnx.load(eight.folder / "onnx" / "view_sa.1.onnx").graph
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    shifted = [node for node in norms if node.input[2] == f"{node.output[0]}/bias"]
    assert len(shifted) == 2 < len(norms), "those of q, k, v and of the MLP; not those of each head's q and k"


def test_a_whole_run(eight):
    frames = SampleClip.rendered(eight.plan.layout)
    images, mask = frames.values["images"], frames.values["mask_ext"]
    with torch.inference_mode():
        expected = eight.model(torch.from_numpy(images), torch.from_numpy(mask)).layers[1].numpy()
    layer = Pipeline.load(eight.folder, "onnxruntime").run(images, mask_ext=mask).layers[1]
    assert compare(layer, expected.reshape(layer.shape)).relative_l2 < 0.1


def test_a_stricter_tolerance_leaves_layers_as_they_are(eight, tmp_path):
    """Down to all of them; they are named in the manifest, and their weights are float16's."""
    frames = SampleClip.rendered(eight.plan.layout)
    strict = calibration.calibrate(eight.model, eight.plan, frames, 1e-7)
    assert all(len(stage.floating) == len(stage.observed) for stage in strict.stages.values())
    manifest = write_verified(eight.model, eight.plan, tmp_path / "engines", lambda layout: frames, 1.5e-2)
    mixed = next(entry for entry in manifest.stages if entry.floating)
    model = onnx.load(tmp_path / "engines" / mixed.file)
    left = [tensor for tensor in model.graph.initializer if tensor.name in mixed.floating]
    assert len(left) == len(mixed.floating) and all(tensor.data_type == TensorProto.FLOAT16 for tensor in left)
    assert max(accuracy.relative_l2 for entry in manifest.stages for accuracy in entry.accuracy.values()) <= 1.5e-2


def test_blocks_that_run_twice_on_the_same_weights(tmp_path):
    config, layout = config_of("memory", encoder_depth=2), layout_of("memory", 56, 70)  # those of `made`: traced once
    manifest = write_verified(
        lively(config),
        ExportPlan.make(config, layout, Precision.FP8, takes_keypoints("memory")),
        tmp_path / "engines",
        tolerance=0.15,
    )
    assert all(accuracy.nans == 0 for entry in manifest.stages for accuracy in entry.accuracy.values())


# ---- TensorRT


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings")
    return library_for(Flavor.RTX)


def test_tensorrt_computes_it_in_fp8(rtx, eight, tmp_path):
    """Every product of a quantised layer reads 8-bit values; the norm's or GELU's own kernel writes them."""
    manifest = read_manifest(eight.folder)
    for name in ("encoder", "view_sa.0", "time_sa.1", "global_sa.1"):
        path = eight.folder / manifest.stage(name).file
        products = set(fp8_products(onnx.load(path, load_external_data=False)))
        plan = PlanBuilder(rtx, BuildOptions(("sm_89", "sm_120"))).build(name, path, "fp8")
        narrow = [layer for layer in plan.layers if any(tensor.dtype == "FP8" for tensor in layer.inputs)]
        assert products and products <= {source for layer in narrow for source in layer.sources}, name
    plans = PlanBuildRequest(rtx, BuildOptions(), Precision.FP8, native=False).build(
        eight.folder, msgspec.structs.replace(manifest, stages=manifest.stages[2:3]), tmp_path
    )
    assert plans.least_chip == 89 and plans.runs_on == "sm_89 and newer" and plans.fits(90) and not plans.fits(86)


def test_chips_without_fp8_are_refused(rtx):
    with pytest.raises(UsageError, match=r"(?s)no fp8 products on these GPU architectures.*sm_86.*sm_89 and newer"):
        PlanBuildRequest(rtx, BuildOptions(("sm_86", "sm_120")), Precision.FP8, native=False)


def test_a_plan_that_widens_a_product_is_refused():
    tensors = {dtype: (Tensor("x", (300, 128), dtype),) for dtype in ("FP8", "Half")}
    layers = {
        dtype: Layer("g", "gemm", inputs, tensors["Half"], ("fc1/fp8", "fc1/scale"))
        for dtype, inputs in tensors.items()
    }
    check("s", [layers["FP8"]], [], "fp8", True, ["fc1/fp8"])
    check("s", [layers["Half"]], [], "fp8", True, ["another"])
    with pytest.raises(AccuracyError, match=r"(?s)a product of s is not computed in fp8.*layer g, of Half.*FP8"):
        check("s", [layers["Half"]], [], "fp8", True, ["fc1/fp8"])


# ---- the command


def run_command(*flags):
    return inside("--preset", "vitl", "--T", 4, "--V", 2, "--dry-run", "--json", *flags)


def test_the_command_says_what_it_will_make():
    weights = [json.loads(run_command(flag).stdout)["total"]["weight_bytes"] for flag in ("--fp8", "--fp16")]
    assert 0.5 < weights[0] / weights[1] < 0.53
    done = run_command("--fp8", "--fp16")
    assert done.returncode == 2 and "--fp16 and --fp8 exclude each other" in done.stderr


def test_onnx_runtime_on_a_gpu_is_refused(eight):
    with pytest.raises(EngineError, match=r"(?s)fp8 engines are for TensorRT.*--backend tensorrt"):
        Pipeline.load(eight.folder, "cuda")
