"""Two worlds of the same cameras: their centres tell the map, and where they cannot, their rotations help."""

import numpy as np
import pytest

from page4d.errors import UsageError
from page4d_engines.results.world.camera_similarity import fit_cameras
from tests.engines.results.world.test_similarity import TURN, assert_same, rotation_of


def cameras(centres, seed=0):
    chance = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (len(centres), 1, 1))
    poses[:, :3, :3] = [rotation_of(chance.normal(size=3)) for _ in centres]
    poses[:, :3, 3] = centres
    return poses


SPREAD = np.random.default_rng(1).normal(size=(8, 3))
LINE = np.outer(np.arange(6.0), [1.0, 2.0, -1.0])


LONG_LINE = np.outer(np.arange(600.0), [1.0, 2.0, -1.0])
"""Of more pairs than are compared."""


@pytest.mark.parametrize(
    ("centres", "turned"), [(SPREAD, False), (LINE, True), (LINE[:2], True), (LONG_LINE, True), (SPREAD[:3], False)]
)
def test_exact_cameras_give_their_map(centres, turned):
    poses = cameras(centres)
    fit = fit_cameras(poses, TURN.of_pose(poses))
    assert_same(fit.similarity, TURN, 1e-7)
    assert fit.turned == turned and fit.cameras == len(centres) and fit.residual < 1e-6


@pytest.mark.parametrize("centres", [SPREAD, LINE])
def test_a_camera_that_is_elsewhere_does_not_count(centres):
    poses = cameras(centres)
    known = TURN.of_pose(poses)
    known[2, :3, 3] += 40
    known[2, :3, :3] = rotation_of(np.array([2.0, 0, 0]))
    assert_same(fit_cameras(poses, known).similarity, TURN, 1e-5)


def test_cameras_without_a_pose_take_no_part():
    poses = cameras(SPREAD)
    known = TURN.of_pose(poses)
    poses[0], known[1] = np.nan, np.nan
    fit = fit_cameras(poses, known)
    assert_same(fit.similarity, TURN, 1e-7)
    assert fit.cameras == 6


def test_cameras_in_one_place_tell_no_scale_unless_it_is_given():
    poses = cameras(np.ones((3, 3)))
    with pytest.raises(UsageError, match="all in one place"):
        fit_cameras(poses, TURN.of_pose(poses))
    with pytest.raises(UsageError, match="all in one place"):
        fit_cameras(poses[:1], TURN.of_pose(poses[:1]))
    assert_same(fit_cameras(poses[:1], TURN.of_pose(poses[:1]), scale=TURN.scale).similarity, TURN, 1e-7)
    with pytest.raises(UsageError, match="no camera has a pose"):
        fit_cameras(np.full((2, 4, 4), np.nan), poses[:2])
