"""Angles between pairs of cameras and distances of their centres, against naive twins and known cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from page4d_engines.results.scores.pose_scores import PoseTally, pair_angles
from page4d_engines.results.world.similarity import Similarity
from tests.engines.results.scores.naive import auc, pose_errors


def rotation(axis, degrees):
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.radians(degrees)
    return np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross


def cameras(count, seed=0, noise=0.0):
    """Poses `[n,4,4]`, and the same with every rotation and centre off a little."""
    chance = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (count, 1, 1))
    for pose in poses:
        pose[:3, :3] = rotation(chance.normal(size=3), chance.uniform(0, 180))
        pose[:3, 3] = chance.normal(size=3)
    off = poses.copy()
    for pose in off:
        pose[:3, :3] = pose[:3, :3] @ rotation(chance.normal(size=3), noise * chance.uniform(0, 20))
        pose[:3, 3] += noise * 0.2 * chance.normal(size=3)
    return poses, off


def scores_of(poses, truth, other_unit=None, least=0.0):
    tally = PoseTally(least)
    tally.add_scene(poses, truth, other_unit)
    return tally.scores(), tally.reasons


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(0, 99), st.floats(0, 1))
def test_pairs_are_those_of_a_naive_twin(count, seed, noise):
    truth, poses = cameras(count, seed, noise)
    naive = np.array(pose_errors(poses, truth))
    parts = list(pair_angles(poses, truth, 0.0))
    assert np.concatenate([part[0] for part in parts]) == pytest.approx(naive[:, 0], abs=1e-5)
    assert np.concatenate([part[1] for part in parts]) == pytest.approx(naive[:, 1], abs=1e-5)
    scores, _ = scores_of(poses, truth)
    assert scores.pairs == count * (count - 1) // 2
    if noise > 0.01:  # the arc cosine of the twin is not exact near 0
        for degrees, value in ((5, scores.auc_5), (15, scores.auc_15), (30, scores.auc_30)):
            assert value == pytest.approx(auc(naive, degrees), abs=1e-9)
        assert scores.rotation_error == pytest.approx(naive[:, 0].mean(), abs=1e-5)


def test_more_cameras_than_are_computed_at_once_make_all_pairs(monkeypatch):
    truth, poses = cameras(17, noise=0.5)
    whole, _ = scores_of(poses, truth)
    monkeypatch.setattr("page4d_engines.results.scores.pose_scores._ROWS", 4)
    parts, _ = scores_of(poses, truth)
    assert parts.pairs == whole.pairs == 136 and parts.rotation_error == pytest.approx(whole.rotation_error)
    assert (parts.auc_5, parts.auc_15, parts.auc_30) == (whole.auc_5, whole.auc_15, whole.auc_30)


def test_exact_poses_score_everything_in_any_world():
    truth, _ = cameras(6)
    world = Similarity(2.5, rotation([1, 2, 3], 70), np.array([4.0, -5.0, 6.0]))
    scores, reasons = scores_of(world.of_pose(truth), truth)
    assert (scores.auc_5, scores.auc_15, scores.auc_30) == (1.0, 1.0, 1.0)
    assert scores.rotation_error == pytest.approx(0, abs=1e-9) and scores.ate == pytest.approx(0, abs=1e-9)
    assert scores.ate_rigid > 0.1 and not reasons  # the scale is wrong


@pytest.mark.parametrize("degrees", [0.5, 2.5, 12.5, 44.0])
def test_a_camera_turned_by_a_known_angle_gives_this_angle_in_its_pairs(degrees):
    truth, _ = cameras(4)
    poses = truth.copy()
    poses[2, :3, :3] = poses[2, :3, :3] @ rotation([0, 1, 0], degrees)
    scores, _ = scores_of(poses, truth)
    assert scores.rotation_error == pytest.approx(degrees / 2)  # three of six pairs have it
    thresholds = [0.5 + 0.5 * (degrees < threshold) for threshold in range(1, 31)]
    # translations are in the frame of the first camera: that of pair (2, 3) turns as well, by at most the angle
    assert scores.auc_30 == pytest.approx(np.mean(thresholds)) and scores.ate == pytest.approx(0, abs=1e-9)


def test_a_translation_counts_without_its_sign_and_without_its_length():
    truth = np.tile(np.eye(4), (2, 1, 1))
    truth[1, :3, 3] = 0, 0, 1
    poses = truth.copy()
    poses[1, :3, 3] = 0, 0, -7
    assert scores_of(poses, truth)[0].auc_5 == 1.0
    poses[1, :3, 3] = 1, 0, 1
    assert [float(both[0]) for _, both in pair_angles(poses, truth, 0.0)] == pytest.approx([45])
    poses[1, :3, 3] = 0
    assert [float(both[0]) for _, both in pair_angles(poses, truth, 0.0)] == pytest.approx([90])


def test_cameras_at_one_place_count_by_their_rotation_alone():
    truth, _ = cameras(3)
    truth[1, :3, 3] = truth[0, :3, 3]
    poses = truth.copy()
    poses[1, :3, 3] += 1e-3  # into a direction that means nothing
    errors = np.concatenate([both for _, both in pair_angles(poses, truth, 1e-6)])
    assert errors[0] == pytest.approx(0, abs=1e-9)


def test_centres_are_compared_after_the_alignment_that_is_asked_for():
    truth, _ = cameras(8)
    chance = np.random.default_rng(1)
    off = chance.normal(size=(8, 3)) * 0.1
    poses = truth.copy()
    poses[:, :3, 3] += off
    scores, _ = scores_of(poses, truth)
    fit = Similarity.closest(poses[:, :3, 3], truth[:, :3, 3])
    distances = np.linalg.norm(fit.of_points(poses[:, :3, 3]) - truth[:, :3, 3], axis=1)
    assert scores.ate == pytest.approx(np.sqrt((distances**2).mean()))
    turned = poses[:, :3, 3] @ fit.rotation.T
    moved = turned + (truth[:, :3, 3] - turned).mean(0)
    assert scores.ate_rigid == pytest.approx(np.sqrt(((moved - truth[:, :3, 3]) ** 2).sum(1).mean()))
    assert scores.ate < scores.ate_rigid < 0.3
    doubled = poses.copy()
    doubled[:, :3, 3] *= 2
    again, reasons = scores_of(doubled, truth, "in a unit of its own")
    assert again.ate == pytest.approx(scores.ate) and again.ate_rigid is None
    assert reasons == {"ate_rigid": "in a unit of its own"}


def test_what_few_cameras_do_not_say_is_missing_with_a_reason():
    truth, _ = cameras(1)
    scores, reasons = scores_of(truth, truth)
    assert scores.images == 1 and scores.pairs == 0 and scores.auc_30 is None and scores.ate is None
    assert "no pairs of cameras" in reasons["auc_30"] and "1 of them" in reasons["ate"]
    truth, _ = cameras(2)
    scores, reasons = scores_of(truth, truth)
    assert scores.auc_30 == 1.0 and scores.ate is None and "2 of them" in reasons["ate"]
    truth, _ = cameras(4)
    poses = truth.copy()
    poses[3] = np.nan
    scores, reasons = scores_of(poses, truth)
    assert scores.images == 3 and scores.pairs == 3 and scores.auc_5 == 1.0 and not reasons


def test_scenes_are_aligned_each_by_itself():
    tally = PoseTally(0.0)
    truth, poses = cameras(5, noise=0.3)
    tally.add_scene(poses, truth, None)
    alone = tally.scores()
    world = Similarity(0.1, rotation([3, 1, 1], 100), np.ones(3))
    tally.add_scene(world.of_pose(poses), truth, None)
    both = tally.scores()
    assert both.pairs == 20 and both.auc_15 == pytest.approx(alone.auc_15) and both.ate == pytest.approx(alone.ate)
