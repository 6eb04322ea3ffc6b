"""Which layers are quantised, by errors that are measured before anything is written; in int8."""

import dataclasses

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

from page4d.accuracy import compare
from page4d.layout import Layout
from page4d_engines import Pipeline
from page4d_engines.ort.cpu_engine import OrtEngine
from page4d_export.exporter import write_verified
from page4d_export.quantize import calibrate as calibration
from page4d_export.quantize.int8 import error, weight
from page4d_export.quantize.stage_graph import Graph
from page4d_export.sample_clip import SampleClip
from page4d_export.stage import stages_of
from page4d_export.tracing.onnx_export import OnnxExporter
from tests.support.exports import verified


@pytest.fixture(scope="module")
def eight(shared):
    """An engine folder in int8, verified."""
    return verified("int8", shared)


def test_a_stricter_tolerance_keeps_more_in_float32(eight):
    """The stage's measured error decides; at the end all activations are float32 and the weights' error is left."""
    frames = SampleClip.rendered(eight.plan.layout)
    loose, strict = (calibration.calibrate(eight.model, eight.plan, frames, tolerance) for tolerance in (0.02, 1e-6))
    assert not any(stage.floating for stage in loose.stages.values())
    assert all(len(stage.floating) == len(stage.observed) for stage in strict.stages.values())
    assert set(loose.stages) == {entry.name for entry in eight.plan.stages() if entry.kind != "mask_head"}


def look_at_choices(eight, monkeypatch, tolerance, look):
    """Calibrate, and look at the choice for each stage.

    `look` is called with its name, the choice, a function that measures another choice, its graph, and what it saw."""
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
    """By what a layer adds to the stage's error: as many layers of the largest own errors would not do."""
    tolerance, kept, others = 5e-3, {}, {}

    def look(name, chosen, measure, graph, seen):
        assert measure(chosen) <= tolerance
        exact = graph.weights
        own = [
            error(inputs.rows, exact[linear.weight], inputs.observed, linear.kind != "mlp.fc2")
            for linear, inputs in zip(graph.linears, seen.linears, strict=True)
        ]
        largest = sorted(range(len(own)), key=lambda number: -own[number])[: len(chosen.floating)]
        kept[name] = len(chosen.floating)
        others[name] = measure(dataclasses.replace(chosen, floating=frozenset(largest)))

    look_at_choices(eight, monkeypatch, tolerance, look)
    some = [name for name in kept if kept[name]]
    assert some and len(some) < len(kept) and all(kept[name] < 6 for name in some)
    assert any(others[name] > tolerance for name in some)


def test_rounded_weights_make_good_what_they_lose(eight, monkeypatch):
    """With activations in float32 the error of the weights is left: less than half of rounding to the nearest."""
    shares = {}

    def look(name, chosen, measure, graph, seen):
        everything = dataclasses.replace(chosen, floating=frozenset(range(len(chosen.names))))
        weights = {matrix: weight(array) for matrix, array in graph.weights.items()}
        nearest = dataclasses.replace(everything, weights=weights)
        shares[name] = measure(everything) / measure(nearest)

    look_at_choices(eight, monkeypatch, 2e-2, look)
    assert len(shares) == 6 and max(shares.values()) < 0.5


def test_layers_in_float32_have_weights_of_8_bits(eight, tmp_path):
    """They are named in the manifest, run, and are more exact than what is quantised whole."""
    frames = SampleClip.rendered(eight.plan.layout)
    manifest = write_verified(eight.model, eight.plan, tmp_path / "engines", lambda layout: frames, 5e-3)
    kept = [name for entry in manifest.stages for name in entry.floating]
    assert kept and all(".weight/" in name for name in kept)
    mixed = next(entry for entry in manifest.stages if entry.floating)
    graph = onnx.load(tmp_path / "engines" / mixed.file).graph
    assert any(node.op_type == "DequantizeLinear" for node in graph.node)
    images, mask = frames.values["images"], frames.values["mask_ext"]
    with torch.inference_mode():
        expected = eight.model(torch.from_numpy(images), torch.from_numpy(mask)).layers[1].numpy()
    layers = [
        Pipeline.load(folder, "onnxruntime").run(images, mask_ext=mask).layers[1]
        for folder in (tmp_path / "engines", eight.folder)
    ]
    errors = [compare(layer, expected.reshape(layer.shape)).relative_l2 for layer in layers]
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
    tokens = rng.normal(0, 1, spec["tokens"].shape).astype(np.float32)
    mask = rng.random(spec["mask"].shape).astype(np.float32)
    out = np.empty(stage.outputs[0].shape, np.float32)
    OrtEngine(path).bind({"tokens": tokens, "mask": mask}, {stage.outputs[0].binding: out})()
    with torch.inference_mode():
        expected = stage.module(torch.from_numpy(tokens), torch.from_numpy(mask)).numpy()
    assert 1e-5 < compare(out, expected).relative_l2 < 0.03
