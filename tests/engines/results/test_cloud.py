"""Points of all cameras in one world, and the PLY file."""

import numpy as np
import pytest

from page4d.errors import UsageError
from page4d_engines.results.cloud import Cloud, probability, write_ply
from page4d_export.sample_scene.clip import render


def scene(T=1, V=3, W=56, H=42):
    """A rendered clip as the network sees it, and its world points.

    Gives images, points in the camera's frame, confidence, poses, and world points."""
    clip = render(T, V, W, H)
    camera, points = np.zeros((T, V, 4, 4)), np.zeros((T, V, H, W, 3), np.float32)
    for v, rendered in enumerate(clip.cameras.values()):
        turn = rendered.world_to_camera[:, :3]
        camera[:, v, :3, :3], camera[:, v, :3, 3], camera[:, v, 3, 3] = turn.T, rendered.centre, 1
        points[:, v] = clip.points[:, v] @ turn.T + rendered.world_to_camera[:, 3]
    return clip.frames, points, np.full((T, V, H, W), 3, np.float32), camera, clip.points


def wall(H=6, W=8, z=4.0):
    """One camera at the origin before a wall: images, points, confidence, poses."""
    y, x = np.mgrid[:H, :W] + 0.5
    points = np.stack([(x - W / 2) / W * z, (y - H / 2) / W * z, np.full((H, W), z)], -1).astype(np.float32)[None, None]
    return np.zeros((1, 1, H, W, 3), np.uint8), points, np.zeros((1, 1, H, W), np.float32), np.eye(4)[None, None]


def read_ply(path):
    """Names, types and values of the only element of a binary PLY, by nothing but the format's description."""
    content = path.read_bytes()
    header, body = content.split(b"end_header\n", 1)
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    element, count = lines[2].rsplit(" ", 1)
    assert element == "element vertex"
    properties = [line.split() for line in lines[3:]]
    assert all(len(words) == 3 and words[0] == "property" for words in properties)
    record = np.dtype([(name, {"float": "<f4", "uchar": "u1"}[kind]) for _, kind, name in properties])
    assert len(body) == int(count) * record.itemsize
    return np.frombuffer(body, record)


def test_the_cameras_agree_on_the_world():
    images, points, confidence, camera, world = scene(T=2)
    cloud = Cloud.of(images, points, confidence, camera, edges=None)
    assert len(cloud.points) == points[..., 0].size
    assert np.abs(cloud.points - world.reshape(-1, 3)).max() < 1e-5
    assert (cloud.colours == images.reshape(-1, 3)).all()
    assert (cloud.points.dtype, cloud.colours.dtype, cloud.confidence.dtype) == (np.float32, np.uint8, np.float32)


def test_confidence_is_a_probability_and_the_unsure_are_left_out():
    images, points, confidence, camera = wall()
    confidence[0, 0, :, :4] = np.log(0.2 / 0.8)
    for least, kept in ((0.1, 48), (0.19, 48), (0.21, 24), (0.51, 0)):
        assert len(Cloud.of(images, points, confidence, camera, min_confidence=least).points) == kept
    cloud = Cloud.of(images, points, confidence, camera)
    assert np.allclose(np.unique(cloud.confidence), [0.2, 0.5])
    assert (np.isclose(cloud.confidence, 0.2) == (cloud.points[:, 0] < 0)).all()


@pytest.mark.parametrize(
    ("logit", "expected"), [(0, 0.5), (-1000, 0), (1000, 1), (np.inf, 1), (-np.inf, 0), (2, 0.880797)]
)
def test_probability(logit, expected):
    assert probability(np.float32([logit]))[0] == pytest.approx(expected, abs=1e-6)


def test_pixels_at_the_border_of_a_near_thing_are_left_out():
    images, points, confidence, camera = wall(H=8, W=10)
    points[0, 0, 2:6, 3:7] /= 2  # a box before the wall
    kept = Cloud.of(images, points, confidence, camera)
    whole = Cloud.of(images, points, confidence, camera, edges=None)
    assert len(whole.points) == 80
    assert len(kept.points) == 80 - (6 * 6 - 2 * 2)  # a ring of one pixel on either side of the border
    assert (kept.points[:, 2] == 2).sum() == 4
    assert len(Cloud.of(images, points, confidence, camera, edges=1.1).points) == 80


def test_a_slope_is_no_edge_and_an_unknown_neighbour_is_none():
    images, points, confidence, camera = wall(H=8, W=10)
    points *= 1.01 ** np.arange(10, dtype=np.float32)[:, None]
    assert len(Cloud.of(images, points, confidence, camera).points) == 80
    cloud = Cloud.of(images, points, confidence, camera, edges=0.005)
    assert len(cloud.points) == 80, "all of it: no border of anything"
    points[0, 0, 4, 4], points[0, 0, 2, 8, 2] = np.nan, np.inf
    assert len(Cloud.of(images, points, confidence, camera).points) == 78


def test_what_is_no_point_is_left_out():
    images, points, confidence, camera = wall()
    images, points, confidence, camera = (np.concatenate([array] * 3, 1) for array in wall())
    points[0, 0, 0, 0, 0], points[0, 0, 0, 1, 2], confidence[0, 0, 0, 2], points[0, 0, 5, 7] = np.nan, -1, np.nan, 0
    camera[0, 1, 0, 3] = np.nan
    camera[0, 2, :3, 3] = 1e300  # beyond what float32 can hold
    cloud = Cloud.of(images, points, confidence, camera, edges=None)
    assert len(cloud.points) == 48 - 4
    assert np.isfinite(cloud.points).all() and np.isfinite(cloud.confidence).all()


@pytest.mark.parametrize("seed", range(3))
def test_any_numbers(seed):
    chance = np.random.default_rng(seed)
    images = chance.integers(0, 256, (2, 3, 14, 28, 3), np.uint8)
    points = (
        (chance.normal(size=images.shape) * np.exp(chance.normal(0, 40, images.shape)))
        .clip(-3e38, 3e38)
        .astype(np.float32)
    )
    cloud = Cloud.of(
        images,
        points,
        chance.normal(0, 50, images.shape[:4]).astype(np.float32),
        chance.normal(size=(2, 3, 4, 4)),
        edges=None,
    )
    assert 0 < len(cloud.points) < points[..., 0].size
    assert np.isfinite(cloud.points).all()
    assert (cloud.confidence >= 0.1).all()


def test_shapes_that_do_not_go_together():
    images, points, confidence, camera = wall()
    for wrong in (
        (images[0], points, confidence, camera),
        (images, points[..., :2], confidence, camera),
        (images, points, confidence[:, :, 1:], camera),
        (images, points, confidence, camera[..., :3, :]),
    ):
        with pytest.raises(UsageError, match="go together"):
            Cloud.of(*wrong)


def test_a_ply_holds_every_point(tmp_path):
    images, points, confidence, camera, _ = scene()
    cloud = Cloud.of(images, points, confidence, camera)
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
    images, points, confidence, camera = wall()
    empty = Cloud.of(images, points * np.nan, confidence, camera)
    assert empty.points.shape == empty.colours.shape == (0, 3)
    write_ply(tmp_path / "points.ply", empty)
    assert len(read_ply(tmp_path / "points.ply")) == 0


def test_an_image_of_nothing_but_edges_is_kept_whole():
    rng = np.random.default_rng(0)
    points = np.ones((1, 2, 20, 30, 3), np.float32)
    points[0, 0, ..., 2] = np.exp(rng.standard_normal((20, 30)))  # noise; the second image is a plane with one step
    points[0, 1, :, 15:, 2] = 2
    images, poses = np.zeros((1, 2, 20, 30, 3), np.uint8), np.broadcast_to(np.eye(4), (1, 2, 4, 4))
    cloud = Cloud.of(images, points, np.zeros((1, 2, 20, 30), np.float32), poses)
    assert len(cloud.points) == 600 + 20 * 28
