"""Poses that Pi3 predicts: the nearest rotation, and the inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.config import PointsFrame
from page4d.errors import UsageError
from page4d.network.poses import camera_to_world, intrinsics, points_source, unproject, world_points, world_to_camera
from tests.support.examples import examples
from tests.support.naive import heads as naive_heads

numbers = st.one_of(st.floats(-100, 100), st.integers(-2, 2).map(float))
poses = st.lists(numbers, min_size=12, max_size=12).map(np.array)


def random_rotations(count, seed):
    """Of unit quaternions, without a decomposition."""
    w, x, y, z = (q := np.random.default_rng(seed).standard_normal((4, count))) / np.linalg.norm(q, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


@examples(200)
@given(poses, st.integers(0, 99))
def test_the_rotation_is_a_rotation_and_no_other_is_nearer(values, seed):
    """Also where rows are zero, equal or opposite, or the nearest orthogonal matrix is a reflection."""
    pose = camera_to_world(values)
    rotation = pose[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert abs(np.linalg.det(rotation) - 1) < 1e-12
    assert (pose[:3, 3] == values[:3]).all() and pose[3].tolist() == [0, 0, 0, 1]
    rows = []
    for row in values[3:].reshape(3, 3):
        length = np.sqrt((row**2).sum())
        rows.append(row / max(length, 1e-12))
    others = random_rotations(500, seed)
    angle = np.random.default_rng(seed).standard_normal((300, 3)) * 0.03
    zero = np.zeros(300)
    spin = np.array(
        [[zero, -angle[:, 2], angle[:, 1]], [angle[:, 2], zero, -angle[:, 0]], [-angle[:, 1], angle[:, 0], zero]]
    ).transpose(2, 0, 1)
    # rotations nearby, by Cayley's formula
    close = np.linalg.solve(np.eye(3) - spin / 2, np.eye(3) + spin / 2) @ rotation

    def distance(candidates):
        return np.sqrt(((candidates - np.array(rows)) ** 2).sum((-2, -1)))

    assert distance(rotation) <= min(distance(others).min(), distance(close).min()) + 1e-9


@examples(50)
@given(st.integers(0, 9999), st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
def test_rows_of_a_rotation_stay_what_they_are_at_any_length(seed, lengths):
    rotation = random_rotations(1, seed)[0]
    values = np.concatenate([[1.0, 2.0, 3.0], (rotation * np.array(lengths)[:, None]).ravel()])
    once = camera_to_world(values)
    np.testing.assert_allclose(once[:3, :3], rotation, atol=1e-12)
    again = camera_to_world(np.concatenate([once[:3, 3], once[:3, :3].ravel()]))
    np.testing.assert_allclose(again, once, atol=1e-12)


def test_the_nearest_rotation_by_another_route():
    """Matrices of both signs, against quaternions."""
    values = np.random.default_rng(0).standard_normal((2, 50, 12))
    poses = camera_to_world(values)
    signs = set()
    for place in np.ndindex(2, 50):
        rows = values[place][3:].reshape(3, 3)
        signs.add(np.sign(np.linalg.det(rows)))
        np.testing.assert_allclose(poses[place], naive_heads.pose(values[place][:3], rows).numpy(), atol=1e-9)
    assert signs == {-1, 1}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, 11])
def test_a_number_that_is_none_spoils_its_own_pose_only(bad, place):
    values = np.random.default_rng(1).standard_normal((3, 12))
    clean = camera_to_world(values)
    values[1, place] = bad
    spoilt = camera_to_world(values)
    assert np.isnan(spoilt[1]).all()
    np.testing.assert_array_equal(spoilt[[0, 2]], clean[[0, 2]])


def test_all_zero_rows_give_some_rotation():
    rotation = camera_to_world(np.zeros(12))[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert abs(np.linalg.det(rotation) - 1) < 1e-12


def test_world_to_camera_inverts_camera_to_world():
    poses = camera_to_world(np.random.default_rng(2).standard_normal((2, 4, 12)).astype(np.float32))
    assert poses.dtype == np.float64
    inverse = world_to_camera(poses)
    assert inverse.shape == (2, 4, 3, 4)
    point = np.random.default_rng(3).standard_normal((2, 4, 3))
    world = np.einsum("...ij,...j->...i", poses[..., :3, :3], point) + poses[..., :3, 3]
    back = np.einsum("...ij,...j->...i", inverse[..., :3], world) + inverse[..., 3]
    np.testing.assert_allclose(back, point, atol=1e-12)
    assert abs(world - point).max() > 0.1


FIELDS = ("points", "depth", "camera", "intrinsics")


def test_points_in_the_world_come_from_depth_where_cameras_and_intrinsics_are_given_too() -> None:
    for frame in (*PointsFrame, None):
        assert points_source(FIELDS, frame) == "depth"
        assert points_source(FIELDS, frame, "points") == "points"


def test_points_of_the_world_need_no_camera_and_those_of_each_camera_do() -> None:
    assert points_source(["points"], PointsFrame.WORLD) == "points"
    for frame in (PointsFrame.CAMERA, None):
        assert points_source(["points", "camera"], frame) == "points"
        with pytest.raises(UsageError, match=r"got: +points\n.*points, camera"):
            points_source(["points"], frame)


@pytest.mark.parametrize("lacking", ["depth", "camera", "intrinsics"])
def test_points_from_depth_name_what_they_lack_and_what_would_do(lacking: str) -> None:
    fields = [name for name in FIELDS if name != lacking]
    assert points_source(fields, PointsFrame.WORLD) == "points"
    with pytest.raises(UsageError, match=r"allowed: depth, camera, intrinsics\n +try: +points from points"):
        points_source(fields, PointsFrame.WORLD, "depth")
    with pytest.raises(UsageError, match=r"allowed: depth, camera, intrinsics; or points\n +try: +page4d-export"):
        points_source([name for name in fields if name != "points"], PointsFrame.WORLD)


def test_a_source_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="no such source"):
        points_source(FIELDS, None, "tokens")


def test_world_points_of_every_source_are_the_same_points() -> None:
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(2, 3, 9))
    numbers[..., 7:] = rng.uniform(0.5, 1.5, (2, 3, 2))
    pose, K = camera_to_world(numbers), intrinsics(numbers, 28, 42)
    depth = rng.uniform(1, 5, (2, 3, 28, 42))
    in_camera = unproject(depth, K)
    rows = np.einsum("tvij,tvhwj->tvhwi", pose[..., :3, :3], in_camera) + pose[..., None, None, :3, 3]

    from_depth = world_points(None, None, depth, pose, K)
    np.testing.assert_allclose(from_depth, rows, atol=1e-12)
    np.testing.assert_allclose(world_points(in_camera, PointsFrame.CAMERA, None, pose, None), rows, atol=1e-12)
    np.testing.assert_allclose(world_points(in_camera, None, depth, pose, K, "points"), rows, atol=1e-12)
    head = rows.astype(np.float32)
    of_head = world_points(head, PointsFrame.WORLD, depth, pose, K, "points")
    assert of_head.dtype == np.float64
    np.testing.assert_array_equal(of_head, head)
