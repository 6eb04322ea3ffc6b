"""The rendered view: what is where, what hides what, and that nothing crashes it."""

import numpy as np
import pytest

from page4d.errors import UsageError
from page4d_engines.results.contact_sheet import BACKGROUND
from page4d_engines.results.scene import cloud_view
from page4d_engines.results.scene.cloud import Cloud
from page4d_engines.results.scene.cloud_view import CAMERA, HEIGHT, WIDTH, render_view

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (30, 30, 220), (240, 240, 240)


def sheet_of_points(x, y, z, colour, n=200):
    """A rectangle of points: two of the three are ranges."""
    axes = [np.linspace(*axis, n) if isinstance(axis, tuple) else np.array([axis]) for axis in (x, y, z)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    return points, np.tile(np.uint8(colour), (len(points), 1))


def joined(*parts):
    points, colours = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return Cloud(points, colours, np.full(len(points), 0.9, np.float32))


def poses(*places):
    """Cameras that look along z, y down."""
    result = np.tile(np.eye(4), (len(places), 1, 1))
    result[:, :3, 3] = places
    return result


def room():
    """A red wall left, a green one right, a blue one at the far end, seen by three cameras."""
    walls = (
        sheet_of_points(-2.0, (-1, 1), (4, 8), RED),
        sheet_of_points(2.0, (-1, 1), (4, 8), GREEN),
        sheet_of_points((-2, 2), (-1, 1), 8.0, BLUE),
    )
    return joined(*walls), poses((-1, 0, 0), (0, 0, 0), (1, 0, 0))


def where(picture, colour, apart=90):
    """Rows and columns of the pixels near a colour, in 0..1 of the picture's height and width."""
    pixels = np.asarray(picture).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - colour).max(-1) < apart)
    return rows / pixels.shape[0], columns / pixels.shape[1]


def drawn(picture):
    return (np.asarray(picture) != BACKGROUND).any(-1)


def test_left_is_left_and_right_is_right():
    picture = render_view(*room())
    assert picture.size == (1200, 675) and picture.mode == "RGB"
    (_, red), (_, green), (_, blue) = where(picture, RED), where(picture, GREEN), where(picture, BLUE)
    assert min(len(red), len(green), len(blue)) > 2000
    assert np.median(red) < np.median(blue) < np.median(green)


def test_up_is_up():
    parts = sheet_of_points((-2, 2), (-2, 0), 6.0, RED), sheet_of_points((-2, 2), (0, 2), 6.0, GREEN)
    picture = render_view(joined(*parts), poses((0, 0, 0)))
    (red, _), (green, _) = where(picture, RED), where(picture, GREEN)
    assert min(len(red), len(green)) > 1000
    assert np.median(red) < np.median(green), "y points down"


def test_the_viewpoint_is_above():
    floor, post = sheet_of_points((-3, 3), 1.0, (3, 9), GREEN), sheet_of_points((-0.2, 0.2), (0, 1), 6.0, RED)
    picture = render_view(joined(floor, post), poses((0, 0, 0)))
    rows, _ = where(picture, GREEN)
    assert np.ptp(rows) > 0.3, "the floor is seen from above, not edge-on"


def test_the_nearer_hides_the_farther():
    far, near = sheet_of_points((-3, 3), (-2, 2), 9.0, GREEN, 800), sheet_of_points((-3, 3), (-2, 2), 6.0, RED, 800)
    for parts in ((near, far), (far, near)):  # in any order
        cloud = joined(*parts)
        picture = render_view(cloud, poses((0, 0, 0)))
        top, bottom, left, right = (np.percentile(places, part) for places in where(picture, RED) for part in (25, 75))
        inner = np.asarray(picture)[int(top * HEIGHT) : int(bottom * HEIGHT), int(left * WIDTH) : int(right * WIDTH)]
        assert inner.size > 3000
        assert (inner[..., 0] > inner[..., 1]).all(), "surfaces are closed"


def test_the_scene_fills_the_picture_in_any_unit_and_place():
    cloud, cameras = room()
    shown = drawn(render_view(cloud, cameras))
    rows, columns = np.nonzero(shown)
    assert np.ptp(rows) > 0.5 * shown.shape[0] or np.ptp(columns) > 0.5 * shown.shape[1]
    for scale, shift in ((1e-4, 0.0), (1000.0, 5000.0)):
        moved = cameras.copy()
        moved[:, :3, 3] = cameras[:, :3, 3] * scale + shift
        other = drawn(
            render_view(
                Cloud((cloud.points * scale + shift).astype(np.float32), cloud.colours, cloud.confidence), moved
            )
        )
        assert (other != shown).mean() < 0.01


def test_outliers_do_not_shrink_the_scene():
    cloud, cameras = room()
    plain = np.asarray(render_view(cloud, cameras)).astype(int)
    points = cloud.points.copy()
    some = np.random.default_rng(0).choice(len(points), len(points) // 50, replace=False)
    points[some] = points[some] * 1000
    points[some[:5]] = 3e38
    spoiled = np.asarray(render_view(Cloud(points, cloud.colours, cloud.confidence), cameras))
    for colour in (RED, GREEN, BLUE):
        assert len(where(spoiled, colour)[0]) > 0.7 * len(where(plain, colour)[0])


def test_cameras_are_drawn_and_do_not_dominate():
    cloud, cameras = room()
    lines = len(where(render_view(cloud, cameras), CAMERA, 25)[0])
    assert 30 < lines < 0.02 * WIDTH * HEIGHT
    assert len(where(render_view(cloud, cameras[:0]), CAMERA, 25)[0]) == 0
    _, columns = where(render_view(cloud, cameras), CAMERA, 25)
    assert np.ptp(columns) > 0.1, "at different places"


def test_cameras_far_away_do_not_shrink_the_scene():
    cloud, _ = room()
    picture = render_view(cloud, poses((-20, 0, -500), (20, 0, -500)))
    rows, columns = np.nonzero(drawn(picture))
    assert np.ptp(rows) > 0.3 * HEIGHT or np.ptp(columns) > 0.4 * WIDTH
    assert min(len(where(picture, colour)[0]) for colour in (RED, GREEN, BLUE)) > 300


def test_broken_and_stray_poses_are_as_good_as_none():
    cloud, cameras = room()
    broken = np.tile(np.eye(4), (3, 1, 1))
    broken[0, 0, 0], broken[1, 0, 3], broken[2, 0, 3] = np.nan, np.inf, 1e300
    assert np.array_equal(render_view(cloud, np.concatenate([cameras, broken])), render_view(cloud, cameras))
    stray = render_view(cloud, np.concatenate([cameras, poses((1e5, 1e5, 1e5))]))
    assert min(len(where(stray, colour)[0]) for colour in (RED, GREEN, BLUE)) > 300


@pytest.mark.parametrize("count", [0, 1, 4])
def test_any_number_of_cameras_all_at_one_place(count):
    cloud, _ = room()
    picture = render_view(cloud, poses(*[(0, 0, 0)] * count) if count else np.zeros((0, 4, 4)))
    assert min(len(where(picture, colour)[0]) for colour in (RED, GREEN, BLUE)) > 300
    amid = render_view(cloud, poses(*[np.median(cloud.points, 0)] * count) if count else np.zeros((0, 4, 4)))
    assert drawn(amid).sum() > 300


def test_cameras_all_around():
    ball = np.random.default_rng(0).normal(size=(20000, 3))
    ball /= np.linalg.norm(ball, axis=1)[:, None]
    ring = []
    for angle in np.arange(8) * np.pi / 4:
        ahead, down = np.array([np.sin(angle), 0, np.cos(angle)]), np.array([0.0, 1, 0])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.stack([np.cross(down, ahead), down, ahead], 1), -5 * ahead
        ring.append(pose)
    colours = np.where(ball[:, 1:2] < 0, RED, GREEN).astype(np.uint8)
    picture = render_view(Cloud(ball.astype(np.float32), colours, np.full(20000, 0.9, np.float32)), np.array(ring))
    (red, _), (green, _) = where(picture, RED), where(picture, GREEN)
    assert np.median(red) < np.median(green)
    assert min(len(red), len(green)) > 500


EMPTY = Cloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))


@pytest.mark.parametrize(
    "cameras",
    [np.zeros((0, 4, 4)), np.full((3, 4, 4), np.nan), poses((0, 0, 0)), poses((0, 0, 0), (1, 0, 0), (2, 5, 1))],
)
def test_no_points_are_said(cameras):
    picture = render_view(EMPTY, cameras)
    words = drawn(picture)[HEIGHT // 2 - 8 : HEIGHT // 2 + 8, WIDTH // 2 - 50 : WIDTH // 2 + 50]
    assert words.any(axis=0).sum() > 50


@pytest.mark.parametrize(
    "points", [[[1, 2, 3]], [[0, 0, 0]] * 50, [[0, 0, 1], [0, 0, 2]], [[3e38, -3e38, 3e38]] * 3 + [[1e-40, 0, 0]]]
)
def test_few_points(points):
    cloud = Cloud(np.float32(points), np.tile(np.uint8(WHITE), (len(points), 1)), np.full(len(points), 0.5, np.float32))
    for cameras in (np.zeros((0, 4, 4)), poses((0, 0, -1)), poses((9, 2, 3), (8, 2, 3))):
        assert len(where(render_view(cloud, cameras), WHITE)[0]) > 0
    assert drawn(render_view(cloud, poses(points[0], points[0]))).any()  # where the cameras are


@pytest.mark.parametrize("seed", range(4))
def test_noise(seed):
    chance = np.random.default_rng(seed)
    points = (
        (chance.normal(size=(5000, 3)) * np.exp(chance.normal(0, 3 * 3**seed, (5000, 1))))
        .clip(-3e38, 3e38)
        .astype(np.float32)
    )
    cameras = np.tile(np.eye(4), (6, 1, 1))
    cameras[:, :3, :3] = np.linalg.qr(chance.normal(size=(6, 3, 3)))[0]
    cameras[:, :3, 3] = chance.normal(size=(6, 3)) * np.exp(chance.normal(0, 10, (6, 1)))
    cloud = Cloud(points, chance.integers(100, 256, (5000, 3), np.uint8), chance.random(5000, np.float32))
    assert drawn(render_view(cloud, cameras)).sum() > 10


def test_many_points_are_sampled_and_always_alike(monkeypatch):
    cloud, cameras = room()
    whole = np.asarray(render_view(cloud, cameras))
    monkeypatch.setattr(cloud_view, "_POINTS", 40_000)
    sampled = np.asarray(render_view(cloud, cameras))
    assert not np.array_equal(sampled, whole)
    assert np.array_equal(sampled, render_view(cloud, cameras))
    assert (drawn(sampled) != drawn(whole)).mean() < 0.05


def test_what_is_no_pose():
    cloud, cameras = room()
    with pytest.raises(UsageError, match="poses"):
        render_view(cloud, cameras[:, :3])
