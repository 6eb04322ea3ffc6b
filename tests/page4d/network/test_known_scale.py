"""The scale that known cameras give: of ten cameras and more, outliers do not count."""

import numpy as np
import pytest

from page4d.network.known_cameras import KnownCameras, robust_scale, similarity_scale
from tests.vectors.rigs import circle, turned


def moved(points, scale=0.4, noise=0.0):
    """The points by a similarity, and noise that is the same every time."""
    random = np.random.default_rng(3)
    return scale * points @ turned(0.4, -1.0, 2.0).T + [3.0, -1.0, 7.0] + noise * random.normal(size=points.shape)


def centres(count):
    return np.stack([KnownCameras.of([camera]).camera_to_world[0, :3, 3] for camera in circle(count)])


@pytest.mark.parametrize(("count", "outliers"), [(10, 1), (10, 4), (17, 8), (40, 12)])
def test_outliers_leave_no_trace(count, outliers):
    known = centres(count)
    estimated = moved(known)
    estimated[-outliers:] += np.random.default_rng(count).normal(size=(outliers, 3)) * 5
    assert robust_scale(known, estimated) == pytest.approx(0.4, rel=1e-9)
    assert abs(similarity_scale(known, estimated) / 0.4 - 1) > 0.02


def test_outliers_among_noise_change_little():
    known = centres(24)
    estimated = moved(known, noise=0.01)
    clean = similarity_scale(known[:20], estimated[:20])
    estimated[20:] *= -3
    assert robust_scale(known, estimated) == pytest.approx(clean, rel=0.01)


def test_without_outliers_it_is_the_scale_of_all_cameras():
    known = centres(30)
    estimated = moved(known, noise=0.02)
    assert robust_scale(known, estimated) == pytest.approx(similarity_scale(known, estimated), rel=0.01)
    assert robust_scale(known, moved(known)) == pytest.approx(0.4, rel=1e-12)


def test_it_is_the_same_every_time():
    known = centres(12)
    estimated = moved(known, noise=0.1)
    assert len({robust_scale(known, estimated) for _ in range(3)}) == 1


def test_cameras_on_a_line_have_a_scale():
    known = np.outer(np.arange(12), [1.0, 2.0, -0.5])
    estimated = moved(known)
    estimated[3] += 9
    assert robust_scale(known, estimated) == pytest.approx(0.4, rel=1e-9)


@pytest.mark.parametrize(("count", "is_robust"), [(9, False), (10, True)])
def test_from_ten_cameras_on_the_scale_is_robust(count, is_robust):
    known = KnownCameras.of(circle(count))
    poses = known.camera_to_world.copy()
    poses[:, :3, 3] = moved(poses[:, :3, 3])
    poses[4, :3, 3] += 20
    scale = known.scale(poses)
    assert (scale == pytest.approx(0.4, rel=1e-9)) is is_robust
    if not is_robust:
        assert scale == similarity_scale(known.camera_to_world[:, :3, 3], poses[:, :3, 3])


@pytest.mark.parametrize("count", [3, 12])
def test_cameras_that_tell_no_scale_leave_it_at_one(count):
    known = KnownCameras.of(circle(count))
    assert known.scale(np.repeat(known.camera_to_world[:1], count, axis=0)) == 1
    poses = known.camera_to_world.copy()
    poses[1, 0, 3] = np.nan
    assert known.scale(poses) == 1
