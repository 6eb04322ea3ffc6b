"""Which pixels become points: each rule against one written pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d_engines.results.scene.cloud_filter import CloudFilter
from page4d_engines.results.scene.cloud_options import CloudOptions
from tests.support.examples import examples


def surface(seed, H, W):
    """Points of a bumpy wall seen from the origin, `[H,W,3]`; some are missing."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W] / 10.0 - 0.4
    z = 2 + rng.normal(0, 0.15, (H, W)).cumsum(1)
    points = np.stack([x * z, y * z, z], -1)
    points[rng.random((H, W)) < 0.15] = np.nan
    return points


def naive_angle(points, centre, row, column):
    """Degrees between the normal of a pixel's surface and its ray; None where there is no normal."""
    H, W = points.shape[:2]

    def usable(r, c):
        return 0 <= r < H and 0 <= c < W and np.isfinite(points[r, c]).all()

    def slope(before, after):
        ends = [place if usable(*place) else (row, column) for place in (before, after)]
        return points[ends[1]] - points[ends[0]]

    across = slope((row, column - 1), (row, column + 1))
    down = slope((row - 1, column), (row + 1, column))
    normal, ray = np.cross(across, down), points[row, column] - centre
    length = np.linalg.norm(normal) * np.linalg.norm(ray)
    if not length > 0:
        return None
    return math.degrees(math.acos(min(1.0, abs(normal @ ray) / length)))


@examples(50)
@given(seed=st.integers(0, 999), H=st.integers(1, 9), W=st.integers(1, 9), degrees=st.floats(5, 89))
def test_surfaces_that_are_seen_from_the_side_are_left_out(seed, H, W, degrees):
    points, centre = surface(seed, H, W), np.array([0.05, 0.0, 0.0])
    kept = CloudFilter(0.0, None, degrees).kept(points, None, np.ones((H, W)), centre)
    for row, column in np.ndindex(H, W):
        if not np.isfinite(points[row, column]).all():
            assert not kept[row, column]
            continue
        angle = naive_angle(points, centre, row, column)
        if angle is None or abs(angle - degrees) > 1e-6:
            assert kept[row, column] == (angle is None or angle <= degrees)


def test_a_wall_is_kept_from_in_front_and_left_out_from_the_side():
    y, x = np.mgrid[:20, :20] / 10.0
    wall = np.stack([x, y, np.full_like(x, 5.0)], -1)
    for centre, is_kept in (((1, 1, 0), True), ((60, 1, 4.9), False)):
        kept = CloudFilter(0.0, None, 80.0).kept(wall, None, np.ones((20, 20)), np.array(centre, float))
        assert kept.all() == is_kept and kept.any() == is_kept


def test_a_camera_without_a_pose_sees_no_surface_from_the_side():
    points = surface(1, 8, 8)
    with_normals = CloudFilter(0.0, None, 10.0).kept(points, None, np.ones((8, 8)), np.full(3, np.nan))
    assert np.array_equal(with_normals, CloudFilter(0.0, None).kept(points, None, np.ones((8, 8))))


def test_dynamic_pixels_are_left_out_only_where_that_is_asked():
    points, sure = np.ones((4, 4, 3)), np.ones((4, 4))
    mask = np.linspace(0, 1, 16).reshape(4, 4)
    assert CloudFilter(0.0).kept(points, None, sure, None, mask).all()
    kept = CloudFilter(0.0, static_only=True).kept(points, None, sure, None, mask)
    assert np.array_equal(kept, mask < 0.5)
    unknown = np.where(mask < 0.2, np.nan, mask)  # what is not known to be static is not
    assert not CloudFilter(0.0, static_only=True).kept(points, None, sure, None, unknown)[mask < 0.2].any()


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"edges": -0.1}, "--edge-depth"),
        ({"edges": math.nan}, "--edge-depth"),
        ({"normals": 91.0}, "--edge-normal"),
        ({"normals": math.nan}, "--edge-normal"),
        ({"max_points": 0}, "--max-points"),
        ({"voxel": math.inf}, "--voxel"),
        ({"voxel": -1.0}, "--voxel"),
    ],
)
def test_numbers_out_of_range_are_refused_by_their_flag(options, flag):
    with pytest.raises(UsageError, match=flag) as caught:
        CloudOptions(**options)
    assert caught.value.got == next(iter(options.values())) or math.isnan(caught.value.got)
    assert caught.value.allowed


def test_flags_change_what_they_name_and_0_takes_a_rule_away():
    base = CloudOptions(points_from="depth", min_confidence=0.3, normals=80.0, max_points=9, voxel=0.5)
    assert base.with_flags() == base
    changed = base.with_flags(edge_depth=0, edge_normal=0.0, max_points=0, voxel=0, static_only=True)
    assert changed == CloudOptions(points_from="depth", min_confidence=0.3, edges=None, static_only=True)
    # a percentile replaces the probability of the run, and the other way round
    percentile = base.with_flags(confidence_percentile=20.0)
    assert (percentile.min_confidence, percentile.confidence_percentile) == (None, 20.0)
    least = percentile.with_flags(min_confidence=0.0)
    assert (least.min_confidence, least.confidence_percentile) == (0.0, None)
