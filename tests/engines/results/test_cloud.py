"""Points of all cameras in one world, and the PLY file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.errors import UsageError
from page4d_engines.results.scene.cloud import Cloud, write_ply
from page4d_engines.results.scene.confidence import Threshold, probability
from page4d_export.sample_scene.clip import render
from tests.engines.results.ply import read_ply
from tests.support.examples import examples


def scene(T=1, V=3, W=56, H=42):
    """A rendered clip: its images, its world points, their depth, and a confidence."""
    clip = render(T, V, W, H)
    depth = np.zeros((T, V, H, W), np.float32)
    for v, camera in enumerate(clip.cameras.values()):
        depth[:, v] = clip.points[:, v] @ camera.world_to_camera[2, :3] + camera.world_to_camera[2, 3]
    return clip.frames, clip.points, depth, np.full((T, V, H, W), 3, np.float32)


def wall(H=6, W=8, z=4.0):
    """One camera at the origin before a wall: images, points, depth, confidence, `[1,1,H,W,..]`."""
    y, x = np.mgrid[:H, :W] + 0.5
    points = np.stack([(x - W / 2) / W * z, (y - H / 2) / W * z, np.full((H, W), z)], -1)[None, None]
    return np.zeros((1, 1, H, W, 3), np.uint8), points, points[..., 2].copy(), np.ones((1, 1, H, W), np.float32)


def test_every_sure_pixel_is_a_point_of_its_colour():
    images, points, depth, confidence = scene(T=2)
    cloud = Cloud.of(images, points, depth, confidence, 0.1, edges=None)
    assert len(cloud.points) == depth.size
    np.testing.assert_array_equal(cloud.points, points.reshape(-1, 3).astype(np.float32))
    np.testing.assert_array_equal(cloud.colours, images.reshape(-1, 3))
    assert (cloud.points.dtype, cloud.colours.dtype, cloud.confidence.dtype) == (np.float32, np.uint8, np.float32)


def test_the_unsure_are_left_out():
    images, points, depth, confidence = wall()
    confidence[0, 0, :, :4], confidence[0, 0, 0, 0], confidence[0, 0, 1, 0] = 0.25, np.nan, np.inf
    for least, kept in ((0, 46), (0.25, 46), (0.3, 24), (1, 24), (1.1, 0), (np.inf, 0)):
        assert len(Cloud.of(images, points, depth, confidence, least).points) == kept
    cloud = Cloud.of(images, points, depth, confidence, 0.1)
    assert ((cloud.confidence == 0.25) == (cloud.points[:, 0] < 0)).all()


@examples(60)
@given(
    shape=st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 6)] * 2),
    percentile=st.one_of(st.floats(0, 100), st.sampled_from([0, 50, 100])),
    unknown=st.floats(0, 0.6),
    seed=st.integers(0, 99),
)
def test_a_percentile_is_of_the_finite_confidences_of_all_images_together(shape, percentile, unknown, seed):
    rng = np.random.default_rng(seed)
    confidence = (1 + np.exp(rng.normal(size=shape))).astype(np.float32)
    confidence[rng.random(shape) < unknown] = rng.choice([np.nan, np.inf, -np.inf])
    known = np.sort(confidence[np.isfinite(confidence)])
    least = Threshold(percentile=percentile).of(confidence)
    images, points = np.zeros((*shape, 3), np.uint8), np.zeros((*shape, 3))
    kept = Cloud.of(images, points, None, confidence, least).confidence
    if not known.size:
        assert least == np.inf and not kept.size
        return
    assert kept.size >= 1 and kept.min() >= least
    # by counting: below the percentile are no more pixels than its share
    assert known.size - kept.size <= np.ceil(percentile / 100 * (known.size - 1))
    assert known.size - kept.size >= np.floor(percentile / 100 * (known.size - 1) - 1e-6)
    np.testing.assert_array_equal(np.sort(kept), known[known.size - kept.size :])


def test_a_percentile_does_not_depend_on_how_pixels_are_spread_over_images():
    confidence = np.arange(1, 101, dtype=np.float32)
    for shape in ((1, 1, 10, 10), (4, 1, 5, 5), (2, 5, 2, 5)):
        assert Threshold(percentile=25).of(confidence.reshape(shape)) == 25.75
    assert Threshold(percentile=0).of(confidence) == 1 and Threshold(percentile=100).of(confidence) == 100
    assert Threshold(0.3).of(confidence) == 0.3


@pytest.mark.parametrize(
    ("logit", "expected"), [(0, 0.5), (-1000, 0), (1000, 1), (np.inf, 1), (-np.inf, 0), (2, 0.880797)]
)
def test_probability(logit, expected):
    assert probability(np.float32([logit]))[0] == pytest.approx(expected, abs=1e-6)


def kept_of(*arrays, edges=0.03):
    return Cloud.of(*arrays, 0.1, edges=edges)


def test_pixels_at_the_border_of_a_near_thing_are_left_out():
    images, points, depth, confidence = wall(H=8, W=10)
    points[0, 0, 2:6, 3:7] /= 2  # a box before the wall
    depth[0, 0, 2:6, 3:7] /= 2
    kept = kept_of(images, points, depth, confidence)
    assert len(kept_of(images, points, depth, confidence, edges=None).points) == 80
    assert len(kept.points) == 80 - (6 * 6 - 2 * 2)  # a ring of one pixel on either side of the border
    assert (kept.points[:, 2] == 2).sum() == 4
    assert len(kept_of(images, points, depth, confidence, edges=1.1).points) == 80
    assert len(kept_of(images, points, None, confidence).points) == 80, "without depth nothing is known to fly"


def test_a_slope_is_no_edge_and_an_unknown_neighbour_is_none():
    images, points, depth, confidence = wall(H=8, W=10)
    depth *= 1.01 ** np.arange(10)
    assert len(kept_of(images, points, depth, confidence).points) == 80
    cloud = kept_of(images, points, depth, confidence, edges=0.005)
    assert len(cloud.points) == 80, "all of it: no border of anything"
    depth[0, 0, 4, 4], depth[0, 0, 2, 8] = np.nan, np.inf
    assert len(kept_of(images, points, depth, confidence).points) == 78


def test_what_is_no_point_is_left_out():
    images, points, depth, confidence = (np.concatenate([array] * 3, 1) for array in wall())
    points[0, 0, 0, 0, 0], depth[0, 0, 0, 1], confidence[0, 0, 0, 2], depth[0, 0, 5, 7] = np.nan, -1, np.nan, 0
    points[0, 1] = np.nan  # of a camera without a pose
    points[0, 2] = 1e300  # beyond what float32 can hold
    cloud = kept_of(images, points, depth, confidence, edges=None)
    assert len(cloud.points) == 48 - 4
    assert np.isfinite(cloud.points).all() and np.isfinite(cloud.confidence).all()


@pytest.mark.parametrize("seed", range(3))
def test_any_numbers(seed):
    chance = np.random.default_rng(seed)
    images = chance.integers(0, 256, (2, 3, 14, 28, 3), np.uint8)
    points = chance.normal(size=images.shape) * np.exp(chance.normal(0, 40, images.shape))
    depth = points[..., 2].clip(-3e38, 3e38).astype(np.float32)
    confidence = probability(chance.normal(0, 50, images.shape[:4]))
    cloud = kept_of(images, points, depth, confidence, edges=None)
    assert 0 < len(cloud.points) < depth.size
    assert np.isfinite(cloud.points).all()
    assert (cloud.confidence >= 0.1).all()


@examples(40)
@given(st.tuples(*[st.integers(1, 3)] * 2, *[st.integers(1, 5)] * 2), st.booleans(), st.integers(0, 99))
def test_images_one_by_one_are_the_cloud_of_all(shape, has_depth, seed):
    rng = np.random.default_rng(seed)
    images, points = rng.integers(0, 256, (*shape, 3), np.uint8), rng.normal(size=(*shape, 3))
    depth, confidence = rng.normal(1, 0.5, shape), rng.random(shape, np.float32)
    places = list(np.ndindex(*shape[:2]))
    parts = [Cloud.of(images[at], points[at], depth[at] if has_depth else None, confidence[at], 0.2) for at in places]
    whole = Cloud.of(images, points, depth if has_depth else None, confidence, 0.2)
    for joined, array in zip(vars(Cloud.joined(parts)).values(), vars(whole).values(), strict=True):
        np.testing.assert_array_equal(joined, array)


def test_shapes_that_do_not_go_together():
    images, points, depth, confidence = wall()
    for wrong in (
        (images[0], points, depth, confidence),
        (images, points[..., :2], depth, confidence),
        (images, points, depth[:, :, 1:], confidence),
        (images, points, None, confidence[:, :, 1:]),
        (images[0, 0, 0], points[0, 0, 0], None, confidence[0, 0, 0]),
    ):
        with pytest.raises(UsageError, match="go together"):
            Cloud.of(*wrong, 0.1)


def test_a_ply_holds_every_point(tmp_path):
    cloud = kept_of(*scene())
    write_ply(tmp_path / "points.ply", cloud)
    vertices = read_ply(tmp_path / "points.ply")
    assert vertices.dtype.names == ("x", "y", "z", "red", "green", "blue", "confidence")
    assert 0 < len(vertices) == len(cloud.points)
    for axis, name in enumerate("xyz"):
        assert (vertices[name] == cloud.points[:, axis]).all()
    for channel, name in enumerate(("red", "green", "blue")):
        assert (vertices[name] == cloud.colours[:, channel]).all()
    assert (vertices["confidence"] == cloud.confidence).all()
    assert [path.name for path in tmp_path.iterdir()] == ["points.ply"]


def test_a_ply_of_nothing(tmp_path):
    images, points, depth, confidence = wall()
    empty = kept_of(images, points * np.nan, depth, confidence)
    assert empty.points.shape == empty.colours.shape == (0, 3)
    write_ply(tmp_path / "points.ply", empty)
    assert len(read_ply(tmp_path / "points.ply")) == 0


def test_an_image_of_nothing_but_edges_is_kept_whole():
    rng = np.random.default_rng(0)
    depth = np.ones((1, 2, 20, 30), np.float32)
    depth[0, 0] = np.exp(rng.standard_normal((20, 30)))  # noise; the second image is a plane with one step
    depth[0, 1, :, 15:] = 2
    images = np.zeros((1, 2, 20, 30, 3), np.uint8)
    cloud = kept_of(images, np.ones(images.shape), depth, np.ones(depth.shape, np.float32))
    assert len(cloud.points) == 600 + 20 * 28
