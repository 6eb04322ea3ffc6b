"""fp8: linear layers of E4M3 numbers with one scale a tensor, measured on frames; on a CPU the same numbers as the
graph says, in TensorRT FP8 products."""

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
from page4d.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines import Pipeline
from page4d_engines.tensorrt.builder import BuildOptions, PlanBuilder, fp8_products
from page4d_engines.tensorrt.layers import Layer, Tensor, check
from page4d_engines.tensorrt.plans import PlanBuildRequest, library_for
from page4d_export.export_plan import ExportPlan
from page4d_export.exporter import write_verified
from page4d_export.quantize import calibrate as calibration
from page4d_export.quantize import fp8
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.fp8 import error, rounded, scale_of
from page4d_export.sample_clip import SampleClip
from tests.support.commands import inside
from tests.support.examples import examples
from tests.support.exports import verified
from tests.support.linear_block import block, observe, put, quantized, run
from tests.support.models import config_of, layout_of, lively, takes_keypoints

EVERY_NUMBER = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64)
EVERY_NUMBER = np.unique(EVERY_NUMBER[np.isfinite(EVERY_NUMBER)])

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
def test_a_number_is_rounded_to_the_nearest(count, size, seed):
    exact = np.random.default_rng(seed).normal(0, size, count)
    scale = scale_of(float(np.abs(exact).max()))
    found = rounded(exact, scale)
    nearest = np.abs(exact[:, None] - EVERY_NUMBER * scale).min(1)
    np.testing.assert_allclose(np.abs(found - exact), nearest, rtol=1e-5, atol=1e-9 * size)


def test_what_other_frames_bring():
    """Twice as large as anything that was measured is held; beyond, it is cut off and no NaN."""
    rng = np.random.default_rng(0)
    x, exact = rng.normal(0, 1, (200, 64)), rng.normal(0, 1, (64, 32))
    seen = Observed(x.mean(0), x.min(0), x.max(0))
    usual, twice, far = (error(x * factor, exact, seen, False) for factor in (1, 2, 100))
    assert 0.01 < usual < 0.04 and 0.01 < twice < 0.04 and 0.5 < far < 1


def test_an_outlier_costs_little():
    """Unlike in int8: the numbers' spacing grows with them."""
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
    want, seen, _ = observe(model, x, tmp_path)
    before = [node.op_type for node in model.graph.node]
    quantized(fp8, model, seen, floating=range(6))
    assert [node.op_type for node in model.graph.node] == before
    assert compare(run(model, x, tmp_path)["out"], want).relative_l2 < 2e-6


@pytest.mark.parametrize("outlier", [1.0, 8.0])
def test_a_block_in_fp8(tmp_path, outlier):
    model, x = block(rows=200, outlier=outlier)
    want, seen, _ = observe(model, x, tmp_path)
    quantized(fp8, model, seen)
    onnx.checker.check_model(model)
    assert 1e-3 < compare(run(model, x, tmp_path)["out"], want).relative_l2 < 5e-2
    types = [node.op_type for node in model.graph.node]
    assert types.count("MatMul") == len(fp8_products(model)) == 6
    assert types.count("QuantizeLinear") == 4, "q, k and v read the same numbers"
    weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    assert len(weights) == 6 and all(tensor.data_type == TensorProto.FLOAT8E4M3FN for tensor in weights)


def test_the_shift_is_worth_its_lines(tmp_path):
    model, x = block(rows=200)
    want, seen, _ = observe(model, x, tmp_path)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    quantized(fp8, model, seen)
    quantized(fp8, plain, [Observed(np.zeros_like(one.mean), one.low, one.high) for one in seen])
    errors = [compare(run(one, x, tmp_path)["out"], want).relative_l2 for one in (model, plain)]
    assert errors[0] < 0.97 * errors[1]


def test_products_are_what_a_naive_twin_computes(tmp_path):
    """In float64, with the nearest of all 254 numbers looked up one by one."""
    model, x = block(rows=40)
    _, seen, _ = observe(model, x, tmp_path)
    exact, bias = (
        numpy_helper.to_array(one).astype(np.float64)
        for one in model.graph.initializer
        if one.name.startswith("b.mlp.fc1.")
    )
    quantized(fp8, model, [Observed(np.zeros_like(one.mean), one.low, one.high) for one in seen], floating=[0, 1, 2, 3])
    found = run(model, x, tmp_path, [("mlp.fc1.weight.sum", 512), ("norm2.out", 128)])
    scales = {
        one.name: float(numpy_helper.to_array(one)) for one in model.graph.initializer if one.name.endswith("/scale")
    }

    def nearest(numbers, scale):
        flat = numbers.reshape(-1) / scale
        return (EVERY_NUMBER[np.abs(flat[:, None] - EVERY_NUMBER).argmin(1)] * scale).reshape(numbers.shape)

    twin = (
        nearest(found["norm2.out"][0].astype(np.float64), scales["norm2.out/scale"])
        @ nearest(exact, scales["b.mlp.fc1.weight/transpose/scale"])
        + bias
    )
    assert compare(found["mlp.fc1.weight.sum"][0], twin.astype(np.float32)).relative_l2 < 1e-5


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
    assert min(found.relative_l2 for entry in blocks for found in entry.accuracy.values()) > 3e-3, (
        "something was quantised"
    )
    half = eight.plan.in_precision(Precision.FLOAT16).manifest("")
    for entry in blocks:
        on_disk = sum(file.stat().st_size for file in (eight.folder / "onnx").glob(f"{entry.name}.onnx*"))
        assert entry.weight_bytes < (0.65 if entry.kind == "encoder" else 0.52) * half.stage(entry.name).weight_bytes
        assert entry.weight_bytes < on_disk < entry.weight_bytes + 150_000, "and the graph"


def test_means_are_taken_out_behind_the_casts_of_16_bits(eight):
    """A norm computes in float32; its result becomes float16 before a layer reads it."""
    graph = onnx.load(eight.folder / "onnx" / "view_sa.1.onnx").graph
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    taken = [node.input[2] for node in norms if node.input[2] == f"{node.output[0]}/bias"]
    assert len(taken) == 2 < len(norms), "those of q, k, v and of the MLP; not those of each head's q and k"


def test_a_whole_run(eight):
    frames = SampleClip.rendered(eight.plan.layout)
    images, mask = frames.values["images"], frames.values["mask_ext"]
    with torch.inference_mode():
        want = eight.model(torch.from_numpy(images), torch.from_numpy(mask)).layers[1].numpy()
    found = Pipeline.load(eight.folder, "onnxruntime").run(images, mask_ext=mask).layers[1]
    assert compare(found, want.reshape(found.shape)).relative_l2 < 0.1


def test_a_stricter_tolerance_leaves_layers_as_they_are(eight, tmp_path):
    """Down to all of them; they are named in the manifest, and their weights are float16's."""
    frames = SampleClip.rendered(eight.plan.layout)
    strict = calibration.calibrate(eight.model, eight.plan, frames, 1e-7)
    assert all(len(found.floating) == len(found.observed) for found in strict.stages.values())
    manifest = write_verified(eight.model, eight.plan, tmp_path / "engines", lambda layout: frames, 1.5e-2)
    mixed = next(entry for entry in manifest.stages if entry.floating)
    model = onnx.load(tmp_path / "engines" / mixed.file)
    left = [tensor for tensor in model.graph.initializer if tensor.name in mixed.floating]
    assert len(left) == len(mixed.floating) and all(tensor.data_type == TensorProto.FLOAT16 for tensor in left)
    assert max(found.relative_l2 for entry in manifest.stages for found in entry.accuracy.values()) <= 1.5e-2


def test_blocks_that_run_twice_on_the_same_weights(tmp_path):
    config, layout = config_of("memory", encoder_depth=2), layout_of("memory", 56, 70)  # those of `made`: traced once
    manifest = write_verified(
        lively(config),
        ExportPlan.make(config, layout, Precision.FP8, takes_keypoints("memory")),
        tmp_path / "engines",
        tolerance=0.15,
    )
    assert all(found.nans == 0 for entry in manifest.stages for found in entry.accuracy.values())


# ---- TensorRT


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings")
    return library_for(Flavor.RTX)


def test_tensorrt_computes_it_in_fp8(rtx, eight, tmp_path):
    """Every product of a quantised layer reads 8-bit numbers; what makes them is part of the norm's or GELU's own
    kernel."""
    manifest = read_manifest(eight.folder)
    for name in ("encoder", "view_sa.0", "time_sa.1", "global_sa.1"):
        path = eight.folder / manifest.stage(name).file
        wanted = set(fp8_products(onnx.load(path, load_external_data=False)))
        plan = PlanBuilder(rtx, BuildOptions(("sm_89", "sm_120"))).build(name, path, "fp8")
        found = {
            source
            for layer in plan.layers
            if any(tensor.dtype == "FP8" for tensor in layer.inputs)
            for source in layer.sources
        }
        assert wanted and wanted <= found, name
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
        dtype: Layer("g", "gemm", given, tensors["Half"], ("fc1/fp8", "fc1/scale")) for dtype, given in tensors.items()
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
