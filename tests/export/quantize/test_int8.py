"""int8: weights of a quarter the size, products that are exact sums of 8-bit integers."""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from page4d.accuracy import compare
from page4d.errors import EngineError, UsageError
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.cpu import multiplies_signed
from page4d.system.progress import SILENT
from page4d_engines import Pipeline
from page4d_engines.ort.int8_weights import signed
from page4d_engines.ort.lowering import lower
from page4d_export.bench.cpu_chain import compare_chain
from page4d_export.exporter import write_verified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.quantize import int8
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.int8 import error, weight
from tests.support.commands import inside
from tests.support.examples import examples
from tests.support.exports import verified
from tests.support.linear_block import block, observe, put, quantized, run, without_means
from tests.support.models import config_of, layout_of, lively, takes_keypoints

# ---- one block, built by hand


def test_shifts_alone_change_nothing(tmp_path):
    """With weights that 8 bits hold exactly and activations in float32 the function stays the same."""
    model, x = block()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/transpose"):
            put(model, tensor.name, weight(numpy_helper.to_array(tensor).astype(np.float64)).values)
    expected, seen, _ = observe(model, x, tmp_path)
    quantized(int8, model, seen, floating=range(6))
    assert not [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert compare(run(model, x, tmp_path)["out"], expected).relative_l2 < 2e-6


@pytest.mark.parametrize("outlier", [1.0, 8.0])
def test_a_block_in_int8(tmp_path, outlier):
    model, x = block(rows=200, outlier=outlier)
    expected, seen, _ = observe(model, x, tmp_path)
    before = len(model.SerializeToString())
    quantized(int8, model, seen)
    onnx.checker.check_model(model)
    assert len(model.SerializeToString()) < 0.3 * before
    assert 1e-4 < compare(run(model, x, tmp_path)["out"], expected).relative_l2 < 2e-2
    types = [node.op_type for node in model.graph.node]
    assert types.count("MatMulInteger") == 6 and types.count("MatMul") == 0
    assert types.count("DynamicQuantizeLinear") == 4, "q, k and v read the same values"
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("/int8")]
    assert len(weights) == 6 and all(tensor.data_type == TensorProto.UINT8 for tensor in weights)


def test_products_are_what_a_naive_twin_computes(tmp_path):
    """In float64: x rounded to the range that it has, weights to theirs.

    On CPUs whose fast 8-bit products saturate this would be off by far more."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.9, 1, (1, 64, 128)).astype(np.float32)  # all products large and of one sign
    model, _ = block(rows=64)
    put(model, "b.mlp.fc1.weight/transpose", rng.uniform(0.9, 1, (128, 512)))
    _, seen, rows = observe(model, x, tmp_path)
    floats = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    quantized(int8, model, without_means(seen), floating=[0, 1, 2, 3])  # so that fc1 sees what it saw
    outputs = run(model, x, tmp_path, [("mlp.fc1.weight.sum", 512), ("norm2.out", 128)])
    normed = outputs["norm2.out"][0].astype(np.float64)
    low, high = min(0.0, normed.min()), max(0.0, normed.max())
    step = (high - low) / 255
    zero = np.round(-low / step)
    rounded = (np.clip(np.round(normed / step) + zero, 0, 255) - zero) * step
    product = rounded @ weight(floats["b.mlp.fc1.weight/transpose"]).values
    expected = (product + floats["b.mlp.fc1.weight.bias"]).astype(np.float32)
    assert compare(outputs["mlp.fc1.weight.sum"][0], expected).relative_l2 < 2e-3
    assert rows[4].shape == normed.shape


def test_signed_weights_give_the_same_sums(tmp_path, monkeypatch):
    """To the bit, where no kernel saturates: with weights of half the range none does, on any CPU."""
    model, x = block(rows=50)
    _, seen, _ = observe(model, x, tmp_path)
    quantized(int8, model, seen, floating=[4])
    for tensor in list(model.graph.initializer):
        if tensor.name.endswith("/int8"):
            weights = numpy_helper.to_array(tensor).astype(np.int16)
            put(model, tensor.name, (weights - 128) // 2 + 128)
    results = []
    for choice in (False, True):
        monkeypatch.setattr("page4d_engines.ort.cpu_engine.multiplies_signed", lambda choice=choice: choice)
        results.append(run(model, x, tmp_path)["out"])
    assert np.array_equal(*results)
    assert signed(model, tmp_path) == {}, "weights within the file stay there"
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert len(products) == 5
    assert all(types[name] == TensorProto.INT8 for node in products for name in (node.input[1], node.input[3]))
    assert [name for name, kind in types.items() if kind == TensorProto.UINT8 and name.endswith("/int8")] == [
        "b.mlp.fc1.weight/transpose/int8"
    ], "still read"


# ---- the pieces


@examples(100)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_a_weight_is_rounded_to_the_nearest(rows, columns, size, seed):
    exact = np.random.default_rng(seed).normal(0, size, (rows, columns))
    exact[:, 0] = 0
    rounded = weight(exact)
    assert rounded.numbers.dtype == np.uint8 and rounded.scale.shape == (columns,)
    assert (np.abs(rounded.values - exact) <= rounded.scale * 0.5001 + 1e-12 * size).all()
    np.testing.assert_allclose(np.abs(rounded.values).max(0), np.abs(exact).max(0), rtol=1e-6, atol=1e-12)
    assert (rounded.values[:, 0] == 0).all() and rounded.numbers.min() >= 1


def test_the_error_of_a_layer_is_that_of_its_activations():
    rng = np.random.default_rng(0)
    x, exact = rng.normal(3, 1, (300, 64)), rng.normal(0, 1, (64, 32))
    seen = Observed(x.mean(0), x.min(0), x.max(0))
    calm, spread = error(x, exact, seen, True), error(x, exact, seen, False)
    assert 1e-4 < calm < spread < 0.02, "around its mean the range is smaller"
    x[:, 5] *= 100
    assert error(x, exact, Observed(x.mean(0), x.min(0), x.max(0)), True) > calm


# ---- whole models


@pytest.fixture(scope="module")
def eight(shared):
    """An engine folder in int8, verified."""
    return verified("int8", shared)


def test_the_exported_model(eight, made):
    manifest = read_manifest(eight.folder)
    assert manifest.precision == "int8" and manifest.encoder_images == 1
    assert {spec.dtype for entry in manifest.stages for spec in entry.outputs} == {"float32"}
    for entry in manifest.stages:
        for accuracy in entry.accuracy.values():
            assert accuracy.relative_l2 < Precision.INT8.tolerance
    blocks = [entry for entry in manifest.stages if entry.kind != "mask_head"]
    errors = [accuracy.relative_l2 for entry in blocks for accuracy in entry.accuracy.values()]
    assert min(errors) > 1e-5, "something was quantised"
    sizes = [
        sum(
            file.stat().st_size
            for file in (folder / "onnx").iterdir()
            if not file.name.endswith((".cpu.onnx", ".vnni.onnx"))
        )
        for folder in (eight.folder, made().folder)
    ]
    assert sizes[0] < 0.35 * sizes[1], "small as this model is, a quarter of what is left is not weights"
    for entry in manifest.stages:
        share = entry.weight_bytes / made().plan.manifest("").stage(entry.name).weight_bytes
        most = {"mask_head": 1.01, "encoder": 0.4}.get(entry.kind, 0.27)  # the encoder's patches and positions stay
        assert share < most, entry.name


def test_weights_in_another_file_become_signed(eight, tmp_path):
    whole = onnx.load(eight.folder / "onnx" / "time_sa.1.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    onnx.save(whole, tmp_path / "stage.onnx", save_as_external_data=True, location="stage.data", size_threshold=1024)
    weights = signed(onnx.load(tmp_path / "stage.onnx", load_external_data=False), tmp_path)
    assert len(weights) == 6
    for name, array in weights.items():
        expected = stored[name.removesuffix("/signed")].astype(int) - 128
        assert array.dtype == np.int8 and np.array_equal(array.astype(int), expected)
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    assert multiplies_signed() == ("avx512_vnni" in flags or "avx_vnni" in flags), "what this machine says"


def test_onnx_runtime_fuses_it(eight, tmp_path):
    """Quantising, product, scales and bias are one kernel, or two where three products share a quantisation."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    model = lower(onnx.load(eight.folder / "onnx" / "view_sa.1.onnx"), False)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    types = [node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node]
    assert types.count("DynamicQuantizeMatMul") == 3 and types.count("MatMulIntegerToFloat") == 3
    assert not {"MatMulInteger", "DequantizeLinear"} & set(types)


@pytest.mark.parametrize(
    "variant", ["memory", *(pytest.param(variant, marks=pytest.mark.slow) for variant in ("dilated", "pi3"))]
)
def test_other_models(variant, tmp_path):
    """Blocks that run twice in a stage on the same weights; segments; heads with blocks of their own."""
    config, layout = config_of(variant, encoder_depth=2), layout_of(variant, 56, 70)  # those of `made`: traced once
    plan = ExportPlan.make(config, layout, Precision.INT8, takes_keypoints(variant))
    manifest = write_verified(lively(config), plan, tmp_path / "engines", tolerance=0.05)
    assert all(accuracy.nans == 0 for entry in manifest.stages for accuracy in entry.accuracy.values())


@pytest.mark.slow
def test_it_is_timed_beside_pytorch():
    plan = ExportPlan.make(config_of("late", encoder_depth=2), layout_of("late", 56, 70), Precision.INT8)
    benchmark = compare_chain(plan, "late", 1, 2, SILENT)
    assert benchmark.precision == "int8" and {row.part for row in benchmark.rows} >= {"encoder", "time_sa", "whole"}
    assert all(row.pytorch > 0 and row.engines > 0 for row in benchmark.rows)
    exact = {entry.kind: entry.weight_bytes for entry in plan.in_precision(Precision.FLOAT32).stages()}
    # of a small encoder most is its embeddings
    blocks = [entry for entry in plan.stages() if entry.kind.endswith("_sa")]
    small = [entry.weight_bytes < 0.3 * exact[entry.kind] for entry in blocks]
    assert blocks and all(small), "what the table's bytes are counted from"


# ---- the command


def run_command(*flags):
    return inside("--preset", "vitl", "--T", 4, "--V", 2, "--dry-run", "--json", *flags)


def test_the_command_says_what_it_will_make():
    weights = [json.loads(run_command(*flags).stdout)["total"]["weight_bytes"] for flags in (["--int8"], [])]
    assert 0.25 < weights[0] / weights[1] < 0.265


def test_what_does_not_go_with_int8(eight):
    with pytest.raises(EngineError, match="int8 engines are for a CPU"):
        Pipeline.load(eight.folder, "cuda")
    with pytest.raises(UsageError, match="--attention plugin computes in 16 bits"):
        ExportPlan.make(
            config_of("default"), layout_of("default", 28, 42), Precision.INT8, attention=AttentionChoice.PLUGIN
        )
