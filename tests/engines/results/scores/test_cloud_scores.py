"""Distances between a cloud and the true surface, against a naive twin and known cases."""

import sys

import numpy as np
import pytest

from page4d_engines.results.scores import cloud_scores
from page4d_engines.results.scores.cloud_scores import CloudTally, ScenePoints
from page4d_engines.results.world.similarity import Similarity
from tests.engines.results.scores.naive import nearest
from tests.engines.results.scores.test_pose_scores import rotation

WORLD = Similarity(0.3, rotation([1, 1, 2], 50), np.array([1.0, 2.0, 3.0]))


def scene(points, truth, kept=None):
    sums = ScenePoints(len(points))
    for number, (cloud, surface) in enumerate(zip(points, truth, strict=True)):
        sums.add(cloud, np.ones(cloud.shape[:2], bool) if kept is None else kept[number], surface)
    tally = CloudTally()
    tally.add_scene(sums)
    return tally


def test_distances_are_those_of_a_naive_twin():
    pytest.importorskip("scipy")
    chance = np.random.default_rng(0)
    truth = chance.normal(size=(2, 5, 6, 3))
    truth[0, 0, 0] = np.nan
    points = WORLD.inverse().of_points(truth + 0.05 * chance.normal(size=truth.shape))
    kept = chance.random(truth.shape[:3]) < 0.8
    tally = scene(points, truth, kept)
    scores = tally.scores()
    known = np.isfinite(truth).all(-1)
    fit = Similarity.robust(points[known & kept], truth[known & kept])
    usable = kept & np.isfinite(points).all(-1)
    accuracy = nearest(fit.of_points(points[usable]), truth[known])
    completeness = nearest(truth[known], fit.of_points(points[usable]))
    assert scores.accuracy_mean == pytest.approx(np.mean(accuracy))
    assert scores.accuracy_median == pytest.approx(np.median(accuracy))
    assert scores.completeness_mean == pytest.approx(np.mean(completeness))
    assert scores.completeness_median == pytest.approx(np.median(completeness))
    assert scores.scenes == 1 and not tally.reasons


def test_the_true_surface_in_another_world_has_no_distance():
    pytest.importorskip("scipy")
    truth = np.random.default_rng(0).normal(size=(1, 6, 7, 3))
    scores = scene(WORLD.of_points(truth), truth).scores()
    assert list(scores.__struct_fields__[1:]) and scores.accuracy_mean == pytest.approx(0, abs=1e-9)
    assert scores.completeness_mean == pytest.approx(0, abs=1e-9)


def test_points_that_the_cloud_lacks_cost_completeness_alone():
    pytest.importorskip("scipy")
    truth = np.random.default_rng(0).normal(size=(1, 6, 7, 3))
    kept = np.ones((1, 6, 7), bool)
    kept[:, :, 3:] = False
    scores = scene(truth, truth, kept).scores()
    assert scores.accuracy_mean == pytest.approx(0, abs=1e-9) and scores.completeness_mean > 0.1


def test_points_are_chosen_evenly_and_stay_within_the_limit(monkeypatch):
    monkeypatch.setattr(cloud_scores, "MOST_POINTS", 100)
    points = np.arange(4 * 50 * 50 * 3, dtype=np.float32).reshape(4, 50, 50, 3)
    sums = ScenePoints(4)
    for image in points:
        sums.add(image, np.ones((50, 50), bool), image)
    assert [len(part) for part in sums._cloud] == [25] * 4
    assert sums._cloud[0][0].tolist() == points[0, 0, 0].tolist()
    assert sums._cloud[3][-1].tolist() == points[3, -1, -1].tolist()


def test_without_scipy_the_scores_say_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    truth = np.random.default_rng(0).normal(size=(1, 6, 7, 3))
    tally = scene(truth, truth)
    assert tally.scores().accuracy_mean is None
    assert 'pip install "page4d[eval]"' in tally.reasons["accuracy_mean"]


def test_points_on_a_line_cannot_be_aligned():
    pytest.importorskip("scipy")
    truth = np.linspace(0, 1, 6)[:, None, None] * np.ones((6, 1, 3))
    tally = scene([truth], [truth])
    assert tally.scores().completeness_median is None and "on a line" in tally.reasons["completeness_median"]
