"""int8: weights of a quarter the size, products that are exact sums of 8-bit integers, errors that were measured before
anything was written."""

import dataclasses
import json
import pathlib

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from page4d.accuracy import compare
from page4d.errors import EngineError, UsageError
from page4d.layout import Layout
from page4d.manifest_file import read_manifest
from page4d.ops import AttentionChoice
from page4d.precision import Precision
from page4d.system.progress import SILENT
from page4d_engines import Pipeline
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_engines.ort.int8_weights import multiplies_signed, signed
from page4d_engines.ort.lowering import lower
from page4d_export.bench.cpu_chain import compare_chain
from page4d_export.export_plan import ExportPlan
from page4d_export.exporter import write_verified
from page4d_export.quantize import calibrate as calibration
from page4d_export.quantize import int8
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.int8 import error, weight
from page4d_export.quantize.linear_layers import Graph
from page4d_export.sample_clip import SampleClip
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.commands import inside
from tests.support.examples import examples
from tests.support.exports import verified
from tests.support.linear_block import block, graph_of, observe, put, quantized, run
from tests.support.models import config_of, layout_of, lively, takes_keypoints

# ---- one block, built by hand


def test_the_graph_finds_what_stands_before_a_layer():
    model, _ = block()
    graph = graph_of(model)
    q, k, v, proj, fc1, fc2 = graph.linears
    assert [linear.weight.split("/")[0] for linear in graph.linears] == ["b.attn.qkv.weight"] * 3 + [
        "b.attn.proj.weight",
        "b.mlp.fc1.weight",
        "b.mlp.fc2.weight",
    ]
    assert [graph.norm_before(linear).outputs[0].name for linear in (q, k, v, fc1)] == ["norm1.out"] * 3 + ["norm2.out"]
    assert graph.norm_before(proj) is graph.norm_before(fc2) is None
    assert graph.values_before(proj) is v and graph.values_before(fc2) is graph.values_before(q) is None


def test_a_norm_that_others_read_is_not_shifted():
    model, _ = block()
    model.graph.node.append(helper.make_node("Identity", ["norm1.out"], ["elsewhere"]))
    graph = graph_of(model)
    assert graph.norm_before(graph.linears[0]) is None and graph.norm_before(graph.linears[4]) is not None


def test_shifts_alone_change_nothing(tmp_path):
    """With weights that 8 bits hold exactly and activations in float32, what is left of int8 are the shifts: the same
    function."""
    model, x = block()
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/transpose"):
            tensor.CopyFrom(
                numpy_helper.from_array(
                    weight(numpy_helper.to_array(tensor).astype(np.float64)).values.astype(np.float32), tensor.name
                )
            )
    want, seen, _ = observe(model, x, tmp_path)
    quantized(int8, model, seen, floating=range(6))
    assert not [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert compare(run(model, x, tmp_path)["out"], want).relative_l2 < 2e-6


@pytest.mark.parametrize("outlier", [1.0, 8.0])
def test_a_block_in_int8(tmp_path, outlier):
    model, x = block(rows=200, outlier=outlier)
    want, seen, _ = observe(model, x, tmp_path)
    before = len(model.SerializeToString())
    quantized(int8, model, seen)
    onnx.checker.check_model(model)
    assert len(model.SerializeToString()) < 0.3 * before
    assert 1e-4 < compare(run(model, x, tmp_path)["out"], want).relative_l2 < 2e-2
    types = [node.op_type for node in model.graph.node]
    assert types.count("MatMulInteger") == 6 and types.count("MatMul") == 0
    assert types.count("DynamicQuantizeLinear") == 4, "q, k and v read the same numbers"
    weights = [tensor for tensor in model.graph.initializer if tensor.name.endswith("/int8")]
    assert len(weights) == 6 and all(tensor.data_type == TensorProto.UINT8 for tensor in weights)


def test_the_shift_is_worth_its_lines(tmp_path):
    """Where tokens have much in common, errors in it do not average out: without the shifts they are larger."""
    model, x = block(rows=200)
    want, seen, _ = observe(model, x, tmp_path)
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    quantized(int8, model, seen)
    quantized(int8, plain, [Observed(np.zeros_like(one.mean), one.low, one.high) for one in seen])
    errors = [compare(run(one, x, tmp_path)["out"], want).relative_l2 for one in (model, plain)]
    assert errors[0] < 0.9 * errors[1]


def test_products_are_what_a_naive_twin_computes(tmp_path):
    """In float64: x rounded to the range that it has, weights to theirs. On processors whose fast 8-bit products
    saturate this would be off by far more."""
    rng = np.random.default_rng(1)
    x = rng.uniform(0.9, 1, (1, 64, 128)).astype(np.float32)  # all products large and of one sign
    model, _ = block(rows=64)
    put(model, "b.mlp.fc1.weight/transpose", rng.uniform(0.9, 1, (128, 512)))
    _, seen, rows = observe(model, x, tmp_path)
    exact = next(
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name == "b.mlp.fc1.weight/transpose"
    ).astype(np.float64)
    bias = next(
        numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "b.mlp.fc1.weight.bias"
    ).astype(np.float64)
    unshifted = [Observed(np.zeros_like(one.mean), one.low, one.high) for one in seen]
    quantized(int8, model, unshifted, floating=[0, 1, 2, 3])  # so that fc1 sees what it saw
    found = run(model, x, tmp_path, [("mlp.fc1.weight.sum", 512), ("norm2.out", 128)])
    given = found["norm2.out"][0].astype(np.float64)
    low, high = min(0.0, given.min()), max(0.0, given.max())
    step = (high - low) / 255
    zero = np.round(-low / step)
    twin = ((np.clip(np.round(given / step) + zero, 0, 255) - zero) * step) @ weight(exact).values + bias
    assert compare(found["mlp.fc1.weight.sum"][0], twin.astype(np.float32)).relative_l2 < 2e-3
    assert rows[4].shape == given.shape


def test_signed_weights_give_the_same_sums(tmp_path, monkeypatch):
    """To the bit, where no kernel saturates: with weights of half the range none does, on any processor."""
    model, x = block(rows=50)
    _, seen, _ = observe(model, x, tmp_path)
    quantized(int8, model, seen, floating=[4])
    for tensor in list(model.graph.initializer):
        if tensor.name.endswith("/int8"):
            numbers = numpy_helper.to_array(tensor)
            put(model, tensor.name, (numbers.astype(np.int16) - 128) // 2 + 128)
    results = []
    for choice in (False, True):
        monkeypatch.setattr("page4d_engines.ort.cpu_engine.multiplies_signed", lambda choice=choice: choice)
        results.append(run(model, x, tmp_path)["out"])
    assert np.array_equal(*results)
    assert signed(model, tmp_path) == {}, "weights within the file stay there"
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert len(products) == 5 and all(
        types[name] == TensorProto.INT8 for node in products for name in (node.input[1], node.input[3])
    )
    assert [name for name, kind in types.items() if kind == TensorProto.UINT8 and name.endswith("/int8")] == [
        "b.mlp.fc1.weight/transpose/int8"
    ], "still read"


# ---- the pieces


@examples(100)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(1e-6, 1e6), st.integers(0, 2**32 - 1))
def test_a_weight_is_rounded_to_the_nearest(rows, columns, size, seed):
    exact = np.random.default_rng(seed).normal(0, size, (rows, columns))
    exact[:, 0] = 0
    found = weight(exact)
    assert found.numbers.dtype == np.uint8 and found.scale.shape == (columns,)
    assert (np.abs(found.values - exact) <= found.scale * 0.5001 + 1e-12 * size).all()
    np.testing.assert_allclose(np.abs(found.values).max(0), np.abs(exact).max(0), rtol=1e-6, atol=1e-12)
    assert (found.values[:, 0] == 0).all() and found.numbers.min() >= 1


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
    errors = [
        found.relative_l2 for entry in manifest.stages if entry.kind != "mask_head" for found in entry.accuracy.values()
    ]
    assert min(errors) > 1e-5, "something was quantised"
    sizes = [
        sum(file.stat().st_size for file in (folder / "onnx").iterdir()) for folder in (eight.folder, made().folder)
    ]
    assert sizes[0] < 0.35 * sizes[1], "small as this model is, a quarter of what is left is not weights"
    for entry in manifest.stages:
        share = entry.weight_bytes / made().plan.manifest("").stage(entry.name).weight_bytes
        assert share < {"mask_head": 1.01, "encoder": 0.4}.get(entry.kind, 0.27), (
            entry.name
        )  # the encoder's patches and positions stay


def test_weights_in_another_file_become_signed(eight, tmp_path):
    whole = onnx.load(eight.folder / "onnx" / "time_sa.1.onnx")
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    onnx.save(whole, tmp_path / "stage.onnx", save_as_external_data=True, location="stage.data", size_threshold=1024)
    found = signed(onnx.load(tmp_path / "stage.onnx", load_external_data=False), tmp_path)
    assert len(found) == 6
    for name, array in found.items():
        assert array.dtype == np.int8 and np.array_equal(
            array.astype(int), stored[name.removesuffix("/signed")].astype(int) - 128
        )
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


def test_a_stricter_tolerance_keeps_more_in_float32(eight):
    """The stage's measured error decides; at the end all activations are float32 and the weights' error is left."""
    frames = SampleClip.rendered(eight.plan.layout)
    loose, strict = (calibration.calibrate(eight.model, eight.plan, frames, tolerance) for tolerance in (0.02, 1e-6))
    assert not any(found.floating for found in loose.stages.values())
    assert all(len(found.floating) == len(found.observed) for found in strict.stages.values())
    assert set(loose.stages) == {entry.name for entry in eight.plan.stages() if entry.kind != "mask_head"}


def look_at_choices(eight, monkeypatch, tolerance, look):
    """Calibrate; `look` is called with each stage's name and choice, a function that measures another choice, its exact
    weights, and what it saw."""
    choose = calibration._choose

    def watched(scheme, path, entry, inputs, outputs, seen, limit):
        chosen = choose(scheme, path, entry, inputs, outputs, seen, limit)

        def measure(choice):
            return calibration._error(path, entry, choice, inputs, outputs)

        look(entry.name, chosen, measure, Graph(onnx_ir.load(path)), seen)
        return chosen

    monkeypatch.setattr(calibration, "_choose", watched)
    calibration.calibrate(eight.model, eight.plan, SampleClip.rendered(eight.plan.layout), tolerance)


def test_what_stays_float32_is_what_the_stage_gains_most_from(eight, monkeypatch):
    """By what a layer adds to the stage's error, not by its own: as many layers of the largest own errors would not
    do."""
    tolerance, kept, others = 5e-3, {}, {}

    def look(name, chosen, measure, graph, seen):
        assert measure(chosen) <= tolerance
        exact = graph.weights
        own = [
            error(one.rows, exact[linear.weight], one.observed, linear.kind != "mlp.fc2")
            for linear, one in zip(graph.linears, seen, strict=True)
        ]
        largest = sorted(range(len(own)), key=lambda number: -own[number])[: len(chosen.floating)]
        kept[name], others[name] = (
            len(chosen.floating),
            measure(dataclasses.replace(chosen, floating=frozenset(largest))),
        )

    look_at_choices(eight, monkeypatch, tolerance, look)
    some = [name for name in kept if kept[name]]
    assert some and len(some) < len(kept) and all(kept[name] < 6 for name in some)
    assert any(others[name] > tolerance for name in some)


def test_rounded_weights_make_good_what_they_lose(eight, monkeypatch):
    """With activations in float32, what is left of a stage's error is its weights': less than half of rounding to the
    nearest."""
    shares = {}

    def look(name, chosen, measure, graph, seen):
        everything = dataclasses.replace(chosen, floating=frozenset(range(len(chosen.layers))))
        nearest = dataclasses.replace(
            everything, weights={matrix: weight(array) for matrix, array in graph.weights.items()}
        )
        shares[name] = measure(everything) / measure(nearest)

    look_at_choices(eight, monkeypatch, 2e-2, look)
    assert len(shares) == 6 and max(shares.values()) < 0.5


def test_layers_in_float32_have_weights_of_8_bits(eight, tmp_path):
    """They are named in the manifest, run, and are more exact than what is quantised whole."""
    frames = SampleClip.rendered(eight.plan.layout)
    manifest = write_verified(eight.model, eight.plan, tmp_path / "engines", lambda layout: frames, 5e-3)
    kept = [name for entry in manifest.stages for name in entry.floating]
    assert kept and all(".weight/" in name for name in kept)
    graph = onnx.load(
        tmp_path / "engines" / "onnx" / f"{next(entry.name for entry in manifest.stages if entry.floating)}.onnx"
    ).graph
    assert any(node.op_type == "DequantizeLinear" for node in graph.node)
    images, mask = frames.values["images"], frames.values["mask_ext"]
    with torch.inference_mode():
        want = eight.model(torch.from_numpy(images), torch.from_numpy(mask)).layers[1].numpy()
    found = [
        Pipeline.load(folder, "onnxruntime").run(images, mask_ext=mask).layers[1]
        for folder in (tmp_path / "engines", eight.folder)
    ]
    errors = [compare(layer, want.reshape(layer.shape)).relative_l2 for layer in found]
    assert errors[0] < errors[1] < 0.05


def test_calibrated_small_written_large(eight, tmp_path):
    """As where the layout is too large for this machine: what was measured at one layout serves another."""
    layout = Layout(2, 2, 28, 42)
    measured = calibration.calibrate(eight.model, eight.plan.at(layout), SampleClip.rendered(layout), 0.02)
    stage = stages_of(eight.model, eight.plan)["time_sa.1"]
    path = OnnxExporter(tmp_path, eight.model.config.head_dim, traces=measured.traces).write(
        stage, measured.change("time_sa.1")
    )
    spec = {spec.name: spec for spec in stage.inputs}
    rng = np.random.default_rng(0)
    tokens, mask = (
        rng.normal(0, 1, spec["tokens"].shape).astype(np.float32),
        rng.random(spec["mask"].shape).astype(np.float32),
    )
    out = np.empty(stage.outputs[0].shape, np.float32)
    OrtEngine(path).bind({"tokens": tokens, "mask": mask}, {stage.outputs[0].binding: out})()
    with torch.inference_mode():
        want = stage.module(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()
    assert 1e-5 < compare(out, want).relative_l2 < 0.03


@pytest.mark.parametrize(
    "variant", ["memory", *(pytest.param(variant, marks=pytest.mark.slow) for variant in ("dilated", "pi3"))]
)
def test_other_models(variant, tmp_path):
    """Blocks that run twice in a stage on the same weights; segments; heads with blocks of their own."""
    config, layout = config_of(variant, encoder_depth=2), layout_of(variant, 56, 70)  # those of `made`: traced once
    plan = ExportPlan.make(config, layout, Precision.INT8, takes_keypoints(variant))
    manifest = write_verified(lively(config), plan, tmp_path / "engines", tolerance=0.05)
    assert all(found.nans == 0 for entry in manifest.stages for found in entry.accuracy.values())


@pytest.mark.slow
def test_it_is_timed_beside_pytorch():
    plan = ExportPlan.make(config_of("late", encoder_depth=2), layout_of("late", 56, 70), Precision.INT8)
    found = compare_chain(plan, "late", 1, 2, SILENT)
    assert found.precision == "int8" and {row.part for row in found.rows} >= {"encoder", "time_sa", "whole"}
    assert all(row.pytorch > 0 and row.engines > 0 for row in found.rows)
    exact = {entry.kind: entry.weight_bytes for entry in plan.in_precision(Precision.FLOAT32).stages()}
    blocks = [
        entry for entry in plan.stages() if entry.kind.endswith("_sa")
    ]  # of a small encoder most is its embeddings
    assert blocks and all(entry.weight_bytes < 0.3 * exact[entry.kind] for entry in blocks), (
        "what the table's bytes are counted from"
    )


# ---- the command


def run_command(*flags):
    return inside("--preset", "vitl", "--T", 4, "--V", 2, "--dry-run", "--json", *flags)


def test_the_command_says_what_it_will_make():
    done = run_command("--int8")
    plain = run_command()
    weights = [json.loads(one.stdout)["total"]["weight_bytes"] for one in (done, plain)]
    assert 0.25 < weights[0] / weights[1] < 0.265


def test_what_does_not_go_with_int8(eight):
    with pytest.raises(EngineError, match="int8 engines are for a CPU"):
        Pipeline.load(eight.folder, "cuda")
    with pytest.raises(UsageError, match="--attention plugin computes in 16 bits"):
        ExportPlan.make(
            config_of("default"), layout_of("default", 28, 42), Precision.INT8, attention=AttentionChoice.PLUGIN
        )
