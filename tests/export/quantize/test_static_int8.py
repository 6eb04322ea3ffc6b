"""int8 with static ranges: what is rounded to them, what is cut off, and how an export chooses."""

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors.numpy import load_file

from page4d import Layout
from page4d.accuracy import compare
from page4d.errors import UsageError
from page4d.manifest import StageEntry, TensorSpec
from page4d.manifest_checks.manifest_file import read_manifest
from page4d.precision import Precision
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export import exporter
from page4d_export.export_request import ExportRequest, export
from page4d_export.exporter import write_verified
from page4d_export.model_source import ModelSource
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.quantize import activation_stats, static_int8
from page4d_export.quantize import calibrate as calibration
from page4d_export.quantize.activation_stats import Seen
from page4d_export.quantize.centering import Observed
from page4d_export.quantize.fixed_range import FixedRange
from page4d_export.quantize.int8 import weight
from page4d_export.quantize.static_int8 import ROOM, attention_error, round_queries_and_keys
from page4d_export.sample_clip import SampleClip
from tests.support.commands import TINY, inside, refused
from tests.support.cpp.parity_runs import clip_of
from tests.support.examples import examples
from tests.support.exports import verified
from tests.support.linear_block import block, observe, put, quantized, run, without_means
from tests.support.models import config_of, layout_of, lively
from tests.support.stage_arrays import arrays_of

# ---- ranges


@examples(100)
@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.floats(1, 2),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_range_holds_what_it_was_made_of_to_half_a_step(low, extent, room, is_symmetric, seed):
    high = low + extent
    make = FixedRange.symmetric if is_symmetric else FixedRange.of
    fixed = make(low, high, room)
    assert fixed.scale == np.float32(fixed.scale) > 0 and 0 <= fixed.zero <= 255
    assert fixed.rounded(np.zeros(1))[0] == 0
    values = np.random.default_rng(seed).uniform(low, high, 50)
    assert (np.abs(fixed.rounded(values) - values) <= fixed.scale * (1 / 2 + 1e-4 + (room == 1))).all()
    ends = fixed.rounded(np.array([-1e12, 1e12]))
    assert ends[1] - ends[0] == pytest.approx(255 * fixed.scale)
    reach = max(abs(min(low, 0)), max(high, 0)) * room
    assert max(-ends[0], ends[1]) <= reach * (1 + 1 / 127) + fixed.scale, "no coarser than the room asks for"


def test_a_range_without_an_extent():
    for fixed in (FixedRange.of(0, 0), FixedRange.symmetric(0, 0)):
        assert fixed.scale == 1 and fixed.rounded(np.zeros(3)).tolist() == [0, 0, 0]


# ---- one block, built by hand


def factors(model, x, tmp_path):
    """What the block's attention multiplies, and what it was observed to be: queries and keys `[1,2,rows,64]`."""
    names = ["attn.qkv.weight/split0.sum", "attn.qkv.weight/split1.sum"]
    outputs = run(model, x, tmp_path, [(name, x.shape[2]) for name in names])
    heads = [outputs[name].reshape(1, x.shape[1], 2, -1).transpose(0, 2, 1, 3).astype(np.float64) for name in names]
    flat = [array.reshape(-1, array.shape[3]) for array in heads]
    return heads, tuple(Observed(array.mean(0), array.min(0), array.max(0)) for array in flat)


def test_a_block_with_static_ranges(tmp_path):
    model, x = block(rows=200)
    expected, seen, _ = observe(model, x, tmp_path)
    _, observed = factors(model, x, tmp_path)
    quantized(static_int8, model, seen)
    changed = onnx_ir.from_proto(model)
    round_queries_and_keys(changed, [observed])
    model = onnx_ir.to_proto(changed)
    onnx.checker.check_model(model)
    types = [node.op_type for node in model.graph.node]
    assert types.count("MatMulInteger") == 6 and types.count("MatMul") == types.count("DynamicQuantizeLinear") == 0
    assert types.count("QuantizeLinear") == 4 + 2, "inputs of layers, of which q, k and v share one; queries and keys"
    assert types.count("DequantizeLinear") == 2
    error = compare(run(model, x, tmp_path)["out"], expected).relative_l2
    assert 1e-4 < error < 2e-2


@pytest.mark.parametrize("size", [1.0, 4.0])
def test_products_are_what_a_naive_twin_computes(tmp_path, size):
    """In float64: x rounded to the range that was measured, or cut off where it is larger, weights to theirs."""
    model, x = block(rows=64)
    _, seen, _ = observe(model, x, tmp_path)
    floats = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    put(model, "norm2.weight", size * floats["norm2.weight"])  # after the ranges were measured
    quantized(static_int8, model, without_means(seen), floating=[0, 1, 2, 3])  # so that fc1 sees what it saw
    outputs = run(model, x, tmp_path, [("mlp.fc1.weight.sum", 512), ("norm2.out", 128)])
    normed = outputs["norm2.out"][0].astype(np.float64)
    fixed = FixedRange.of(float(seen[4].low.min()), float(seen[4].high.max()), ROOM)
    is_cut = (normed < fixed.rounded(np.array(-1e9))) | (normed > fixed.rounded(np.array(1e9)))
    assert is_cut.any() == (size > 1)
    exact = fixed.rounded(normed) @ weight(floats["b.mlp.fc1.weight/transpose"]).values
    result = outputs["mlp.fc1.weight.sum"][0] - floats["b.mlp.fc1.weight.bias"]
    np.testing.assert_allclose(result, exact, atol=2e-3 * np.abs(exact).max())


def test_the_error_of_an_attention_is_that_of_its_products(tmp_path):
    model, x = block(rows=120)
    (queries, keys), observed = factors(model, x, tmp_path)
    seen = [
        Seen(240, stats.mean, stats.low, stats.high, None, array.reshape(-1, 64))
        for array, stats in zip((queries, keys), observed, strict=True)
    ]
    rounded = [
        FixedRange.symmetric(stats.low.min(), stats.high.max(), ROOM).rounded(array)
        for array, stats in zip((queries, keys), observed, strict=True)
    ]
    exact, wrong = (pair[0] @ pair[1].swapaxes(2, 3) for pair in ((queries, keys), rounded))
    error = np.linalg.norm(wrong - exact) / np.linalg.norm(exact)
    assert 0.5 < attention_error(*seen) / error < 2 and error > 1e-3


def test_what_is_seen_of_queries_and_keys(tmp_path):
    """Over several calls, against all tokens at once in float64."""
    model, _ = block(rows=40)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "seen.onnx")

    def spec(name):
        return TensorSpec(name, (1, 40, 128), "float32")

    entry = StageEntry("b", "view_sa", 0, (spec("x"),), (spec("out"),), 0, 0, 0, calls=2)
    x = np.random.default_rng(1).normal(0, 1, (2, 40, 128)).astype(np.float32)
    _, stats = activation_stats.observe(tmp_path / "seen.onnx", entry, {"x": x}, attention=True)
    ((queries, keys),) = stats.attentions
    calls = [factors(model, call[None], tmp_path)[0] for call in x]
    for number, seen in enumerate((queries, keys)):
        rows = np.concatenate([call[number].reshape(-1, 64) for call in calls])
        assert seen.tokens == 160 and seen.moment is None
        np.testing.assert_allclose(seen.low, rows.min(0), atol=1e-4)
        np.testing.assert_allclose(seen.high, rows.max(0), atol=1e-4)


# ---- whole models


@pytest.fixture(scope="module")
def static(shared):
    """An engine folder in int8 with static ranges, verified."""
    return verified("int8", shared, static_ranges=True)


def test_the_exported_model(static):
    manifest = read_manifest(static.folder)
    assert manifest.precision == "int8" and manifest.static_ranges and manifest.encoder_images == 6
    for entry in manifest.stages:
        types = [node.op_type for node in onnx.load(static.folder / entry.file).graph.node]
        has_layers = entry.kind != "mask_head"
        assert "DynamicQuantizeLinear" not in types and ("QuantizeLinear" in types) == has_layers
        if has_layers:
            assert types.count("DequantizeLinear") >= 2, "queries and keys"
            assert all(1e-5 < accuracy.relative_l2 < Precision.INT8.tolerance for accuracy in entry.accuracy.values())


def test_no_image_of_a_call_depends_on_another(static):
    """Without static ranges the images of a call share a range, so a call has one image."""
    folder = EngineFolder.open(static.folder)
    entry = folder.manifest.stage("encoder")
    inputs = arrays_of(entry.inputs)
    tokens = np.zeros(entry.outputs[0].shape, np.float32)
    call = OrtEngine.of_stage(folder, entry).bind(inputs, {entry.outputs[0].binding: tokens})
    rng, results = np.random.default_rng(0), []
    for contrast in (1, 8):
        inputs["images"][1:] = rng.integers(0, 32 * contrast, inputs["images"][1:].shape)
        call()
        results.append(tokens.copy())
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert np.abs(results[0][1:] - results[1][1:]).max() > 0.1


def test_a_stricter_tolerance_keeps_more_in_float32(static):
    frames = SampleClip.rendered(static.plan.layout)
    loose, strict = (calibration.calibrate(static.model, static.plan, frames, tolerance) for tolerance in (0.05, 1e-6))
    assert not any(stage.floating for stage in loose.stages.values())
    for name, stage in strict.stages.items():
        assert len(stage.attentions) >= 1 and stage.names == strict.floating(name)
        assert len(stage.floating) == len(stage.observed) + len(stage.attentions)


@pytest.mark.slow
def test_segments_and_blocks_that_run_twice(tmp_path):
    for variant in ("dilated", "pi3"):
        config = config_of(variant, encoder_depth=2)
        plan = ExportPlan.make(config, layout_of(variant, 56, 70), Precision.INT8, static_ranges=True)
        manifest = write_verified(lively(config), plan, tmp_path / variant, tolerance=0.05)
        assert all(accuracy.nans == 0 for entry in manifest.stages for accuracy in entry.accuracy.values())


# ---- requests


def test_static_ranges_are_of_int8():
    for precision in set(Precision) - {Precision.INT8}:
        with pytest.raises(UsageError, match=r"--static-ranges is of int8\s+got: +" + str(precision)):
            ExportPlan.make(config_of("default"), Layout(1, 2, 28, 42), precision, static_ranges=True)


def test_static_ranges_are_measured_on_frames_that_were_given(static, tmp_path):
    request = ExportRequest(source=ModelSource.of(static.model), plan=static.plan, out=tmp_path / "engines")
    with pytest.raises(UsageError, match=r"--static-ranges without --frames(.|\n)*--frames FOLDER"):
        request.check()
    with pytest.raises(UsageError, match="--static-ranges without --frames"):
        export(
            static.model, T=3, V=2, height=56, width=70, out=tmp_path / "engines", precision="int8", static_ranges=True
        )
    refused(inside(*TINY, "--int8", "--static-ranges", "--no-build", "-o", tmp_path / "engines"), 2, "without --frames")
    refused(inside(*TINY, "--fp16", "--static-ranges", "--no-build", "-o", tmp_path / "engines"), 2, "is of int8")
    assert not any(tmp_path.iterdir())


def test_ranges_are_of_the_first_window_and_the_last_is_verified(static, tmp_path, monkeypatch):
    """Layers are chosen with a margin: errors of other frames differ, and a lower tolerance is a lower bound, too."""
    limits, choose = [], calibration.calibrate

    def watched(model, plan, clip, tolerance, *rest):
        limits.append(tolerance)
        return choose(model, plan, clip, tolerance, *rest)

    monkeypatch.setattr(exporter, "calibrate", watched)
    frames, layout, out = clip_of(tmp_path / "clip", 7, 2, 100, 80), static.plan.layout, tmp_path / "engines"
    manifest = export(
        static.model, T=3, V=2, height=56, width=70, out=out, precision="int8", frames=frames, static_ranges=True
    )
    assert manifest.static_ranges and manifest.verification.frames == "clip, its last window"
    assert limits == [pytest.approx(0.8 * manifest.verification.tolerance)]
    first, last = (SampleClip.read(FrameFolder.open(frames), layout, is_last) for is_last in (False, True))
    assert not np.array_equal(first.values["images"], last.values["images"])
    assert np.array_equal(load_file(out / manifest.golden.inputs)["images"], last.values["images"])
    measured = calibration.calibrate(static.model, static.plan, first, Precision.INT8.tolerance)
    queries, _ = measured.stages["view_sa.0"].attentions[0]
    scales = [
        float(numpy_helper.to_array(tensor))
        for tensor in onnx.load(out / "onnx" / "view_sa.0.onnx").graph.initializer
        if tensor.name.endswith("/scale") and not tensor.dims
    ]
    assert np.float32(FixedRange.symmetric(*queries.range(False), ROOM).scale) in scales
