"""What a precision costs, in the task's own numbers: real engines in int8 against the same in float32."""

import pytest

from page4d import Layout, ModelConfig
from page4d.precision import Precision
from page4d.system.progress import SILENT
from page4d_engines.results.scores.evaluation import evaluate
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_scene.clip import render, save
from tests.support.commands import run
from tests.support.models import lively


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The clip, and by precision the output folder of a run over it."""
    folder = tmp_path_factory.mktemp("precisions")
    save(render(3, 1, 70, 56), folder / "clip")
    options = {"width": 128, "heads": 2, "depth": 4, "encoder_depth": 2, "predictions": ("camera", "depth")}
    config = ModelConfig.preset("vggt", **options)
    model = lively(config)
    for precision in ("float32", "int8"):
        engines = folder / f"engines-{precision}"
        engines.mkdir()
        write_unverified(model, ExportPlan.make(config, Layout(3, 1, 56, 70), Precision(precision)), engines)
        done = run(engines, folder / "clip", "-o", folder / precision, "--threads", 1)
        assert done.returncode == 0, done.stderr
    return folder


def test_int8_differs_a_little_and_float32_from_itself_not_at_all(runs):
    same = evaluate(runs / "float32", None, runs / "float32", None, SILENT).runs[0].scores
    assert same.pose.auc_5 == 1.0 and same.depth.abs_rel == 0 and same.depth.abs_rel_metric == 0
    scores = evaluate(runs / "int8", None, runs / "float32", None, SILENT).runs[0].scores
    assert scores.pose.images == 3 and 0 < scores.pose.rotation_error < 5
    assert 0 < scores.depth.abs_rel < 0.1 and scores.depth.delta_125 > 0.95
    assert scores.mask is None and scores.reasons["mask"] == "the run has no mask"


def test_both_stand_beside_each_other_against_the_truth(runs):
    evaluation = evaluate(runs / "int8", runs / "clip", runs / "float32", None, SILENT)
    assert [entry.precision for entry in evaluation.runs] == ["int8", "float32"]
    values = [entry.scores.values()["depth.abs_rel"] for entry in evaluation.runs]
    assert evaluation.difference["depth.abs_rel"] == values[0] - values[1] != 0
    reason = evaluation.runs[0].scores.reasons["pose.ate"]  # the true camera stands still
    assert reason == "the camera centres determine no alignment (3 in one place): 3 are needed, not on a line"
