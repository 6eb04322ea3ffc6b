"""Cameras estimated from the points that their images show."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from page4d.cameras import Camera, read_cameras
from page4d.errors import UsageError
from page4d.layout import Layout
from page4d_engines.clip.fit import TO_ANY_SIZE, Fit, FitMode
from page4d_engines.results.scene.calibration import Calibration, calibrate, write_calibration
from tests.support.examples import examples

LAYOUT = Layout(T=1, V=1, H=112, W=140)
POSE = np.array([[0.6, 0, 0.8, 1], [0, 1, 0, -2], [-0.8, 0, 0.6, 3], [0, 0, 0, 1]])


def seen(K, H=LAYOUT.H, W=LAYOUT.W):
    """What a camera sees of a box before a slanted wall: its points in the camera's frame, `[H,W,3]`."""
    y, x = np.mgrid[:H, :W] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    wall = 5 / (rays @ [0.3, -0.2, 1.0])
    box = (np.abs(x - W * 0.4) < W / 6) & (np.abs(y - H * 0.6) < H / 6)
    return (rays * np.where(box, 2.5, wall)[..., None]).astype(np.float32)


def intrinsics(fx, fy, cx=LAYOUT.W / 2, cy=LAYOUT.H / 2):
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def same(width=LAYOUT.W, height=LAYOUT.H, mode=None):
    return Fit.choose((width, height), LAYOUT, mode)


SURE = np.full((LAYOUT.H, LAYOUT.W), 2.0, np.float32)


@pytest.mark.parametrize(("fx", "fy"), [(150, 150), (90, 120), (700, 640), (40, 40)])
def test_the_focal_length_is_recovered(fx, fy):
    estimate = calibrate(seen(intrinsics(fx, fy)), SURE, POSE, same())
    assert estimate.fitted
    assert np.allclose(estimate.camera.K, intrinsics(fx, fy), rtol=1e-3)
    assert estimate.residual < 0.01
    assert (estimate.camera.width, estimate.camera.height) == (LAYOUT.W, LAYOUT.H)


def test_the_unit_of_the_points_does_not_matter():
    for scale in (1e-6, 1e6):
        assert calibrate(seen(intrinsics(150, 140)) * np.float32(scale), SURE, POSE, same()).camera.K[
            0, 0
        ] == pytest.approx(150, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("wild", [0.5, 30.0])
def test_a_fifth_of_the_points_may_be_wrong(seed, wild):
    chance = np.random.default_rng(seed)
    points = seen(intrinsics(150, 120))
    wrong = chance.random(points.shape[:2]) < 0.2
    points[wrong, :2] += chance.normal(0.5 * wild, wild, (int(wrong.sum()), 2))  # to one side, on average
    estimate = calibrate(points, SURE, POSE, same())
    assert estimate.fitted
    assert np.allclose(estimate.camera.K, intrinsics(150, 120), rtol=0.01)


def test_noise_does_not_bias_the_focal_length_and_shows_as_the_residual():
    points = seen(intrinsics(150, 150))
    points[..., :2] += np.random.default_rng(0).normal(0, 0.04, (*SURE.shape, 2)) * points[..., 2:]  # six pixels
    estimate = calibrate(points, SURE, POSE, same())
    assert np.allclose(estimate.camera.K[[0, 1], [0, 1]], 150, rtol=0.01)
    assert estimate.residual == pytest.approx(6 * np.sqrt(2), rel=0.1)
    half = calibrate(points, SURE, POSE, same(2 * LAYOUT.W, 2 * LAYOUT.H))
    assert half.residual == pytest.approx(2 * estimate.residual, rel=1e-6), "in pixels of the source"


def test_the_unsure_have_less_to_say():
    points, confidence = seen(intrinsics(150, 150)), SURE.copy()
    half = np.random.default_rng(0).random(SURE.shape) < 0.6
    points[half, :2] *= 1.5
    confidence[half] = -8
    assert calibrate(points, confidence, POSE, same()).camera.K[0, 0] == pytest.approx(150, rel=1e-3)


@pytest.mark.parametrize("mode", TO_ANY_SIZE)
@pytest.mark.parametrize("size", [(640, 480), (300, 500)])
def test_the_camera_is_that_of_the_source(mode, size):
    """A camera of the user's photo, seen through the fit, comes back as it was."""
    fit = same(*size, mode)
    # CROP keeps and PAD may move the middle by half a pixel, so the source camera is made from the fitted one
    fitted = Camera(LAYOUT.W, LAYOUT.H, intrinsics(150, 130), np.eye(3, 4))
    source = fit.source_camera(fitted)
    estimate = calibrate(seen(fitted.K), SURE, POSE, fit)
    assert (estimate.camera.width, estimate.camera.height) == size
    assert np.allclose(estimate.camera.K, source.K, rtol=1e-3)
    assert estimate.camera.K[0, 0] == pytest.approx(150 / fit.scale[0], rel=1e-3)
    assert np.allclose(estimate.camera.K[:2, 2], np.array(size) / 2, atol=1.01 * max(1 / s for s in fit.scale))


def test_what_lies_beside_a_padded_image_takes_no_part():
    fit = same(100, 400, FitMode.PAD)
    points = seen(intrinsics(150, 150))
    left, _, width, _ = fit.target
    assert width < LAYOUT.W / 2
    points[:, :left, 0] *= 3
    points[:, left + width :, 0] *= 3
    assert calibrate(points, SURE, POSE, fit).camera.K[0, 0] == pytest.approx(150 / fit.scale[0], rel=1e-3)


def guessed(estimate):
    assert not estimate.fitted
    assert np.isnan(estimate.residual)
    assert np.allclose(estimate.camera.K, intrinsics(LAYOUT.W, LAYOUT.W))


def test_where_no_camera_sees_such_points_a_guess_is_stated():
    points = seen(intrinsics(150, 150))
    guessed(calibrate(points * [-1, 1, 1], SURE, POSE, same()))  # mirrored: a negative focal length
    guessed(calibrate(points * [0, 0, 1], SURE, POSE, same()))
    guessed(calibrate(points * np.nan, SURE, POSE, same()))
    guessed(calibrate(-points, SURE, POSE, same()))
    guessed(calibrate(points, SURE * np.nan, POSE, same()))


def test_sixteen_pixels_are_enough_and_fewer_are_not():
    points = np.full((LAYOUT.H, LAYOUT.W, 3), np.nan, np.float32)
    points[10:14, 20:24] = seen(intrinsics(150, 150))[10:14, 20:24]
    assert calibrate(points, SURE, POSE, same()).camera.K[0, 0] == pytest.approx(150, rel=1e-3)
    points[10, 20] = np.inf
    guessed(calibrate(points, SURE, POSE, same()))


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_no_camera(seed):
    chance = np.random.default_rng(seed)
    points = chance.normal(size=(LAYOUT.H, LAYOUT.W, 3)).astype(np.float32)
    guessed(calibrate(points, chance.normal(0, 30, SURE.shape).astype(np.float32), POSE, same()))
    points *= np.exp(chance.normal(0, 40, points.shape)).clip(0, 1e37).astype(np.float32)
    estimate = calibrate(points, np.full_like(SURE, -np.inf), POSE, same())
    assert np.isfinite(estimate.camera.K).all() and (estimate.camera.K[[0, 1], [0, 1]] > 0).all()


def test_other_shapes_are_refused():
    points = seen(intrinsics(150, 150))
    for wrong in ((points[1:], SURE, POSE), (points, SURE[1:], POSE), (points, SURE, POSE[:3])):
        with pytest.raises(UsageError, match=r"calibrated(.|\n)*112,140,3"):
            calibrate(*wrong, same())


def test_the_file_is_read_back_as_cameras(tmp_path):
    fit = same(640, 480, FitMode.CROP)
    estimate = calibrate(seen(intrinsics(150, 150)), SURE, POSE, fit)
    unfitted = calibrate(seen(intrinsics(150, 150)) * np.nan, SURE, POSE, fit)
    path = tmp_path / "cameras.json"
    assert write_calibration(path, {"b": estimate, "a": unfitted}) == []
    cameras = read_cameras(path)
    assert list(cameras) == ["b", "a"]
    assert (cameras["b"].width, cameras["b"].height) == (640, 480)
    assert (cameras["b"].K == estimate.camera.K).all()
    assert np.allclose(cameras["b"].centre, POSE[:3, 3])
    assert np.allclose(cameras["b"].world_to_camera[:, :3] @ POSE[:3, :3], np.eye(3))
    content = json.loads(path.read_text())
    assert np.array_equal(content["b"]["camera_to_world"], POSE)
    assert [content[name]["fitted"] for name in "ba"] == [True, False]
    assert content["b"]["residual"] == estimate.residual
    assert content["a"]["residual"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["cameras.json"]


def test_a_camera_without_a_pose_is_left_out_and_named(tmp_path):
    points = seen(intrinsics(150, 150))
    broken, sheared, far = POSE.copy(), POSE.copy(), POSE.copy()
    broken[0, 0], sheared[0, 1], far[:3, 3] = np.nan, 0.5, np.inf
    poses = {"broken": broken, "good": POSE, "sheared": sheared, "far": far}
    estimates = {name: calibrate(points, SURE, pose, same()) for name, pose in poses.items()}
    assert all(estimate.fitted for estimate in estimates.values()), "the points know nothing of the pose"
    path = tmp_path / "cameras.json"
    assert write_calibration(path, estimates) == ["broken", "sheared", "far"]
    assert list(read_cameras(path)) == ["good"]
    assert write_calibration(path, {}) == []
    assert read_cameras(path) == {}


@examples(60)
@given(
    size=st.tuples(st.integers(20, 900), st.integers(20, 900)),
    mode=st.sampled_from(TO_ANY_SIZE),
    focal=st.tuples(st.floats(20, 900), st.floats(20, 900)),
)
def test_intrinsics_that_are_given_are_those_of_the_photo(size, mode, focal):
    """Each axis by itself, crop and padding undone: fitted again, the camera is as the network has it."""
    fit = same(*size, mode)
    calibration = Calibration.given(intrinsics(*focal), POSE, fit)
    assert (calibration.camera.width, calibration.camera.height) == size
    np.testing.assert_allclose(fit.camera(calibration.camera).K, intrinsics(*focal), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(calibration.camera.K[[0, 1], [0, 1]], np.array(focal) / fit.scale, rtol=1e-12)
    np.testing.assert_allclose(calibration.camera.world_to_camera @ POSE, np.eye(4)[:3], atol=1e-12)
    assert calibration.fitted is None and np.isnan(calibration.residual)


def test_entries_of_given_intrinsics_say_nothing_of_a_fit_and_have_a_focal_length(tmp_path):
    nothing = np.array([[np.nan, 0, 70], [0, 100, 56], [0, 0, 1.0]])
    rig = {
        "good": Calibration.given(intrinsics(90, 100), POSE, same()),
        "no focal length": Calibration.given(nothing, POSE, same()),
    }
    assert write_calibration(tmp_path / "cameras.json", rig) == ["no focal length"]
    content = json.loads((tmp_path / "cameras.json").read_text())
    assert {name: set(entry) for name, entry in content.items()} == {
        "good": {"width", "height", "K", "world_to_camera", "camera_to_world"}
    }
