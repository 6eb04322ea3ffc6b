"""What a viewer draws: points, thinned; cameras; which way is up; where the start view is."""

import dataclasses

import numpy as np
import pytest

from page4d_engines.results.overlay import colour_map
from page4d_engines.results.viewer.colouring import Colour, Coloured, available
from page4d_engines.results.viewer.shown_image import ShownImage
from page4d_engines.results.viewer.shown_points import ShownPoints, Thinning
from page4d_engines.results.viewer.shown_scene import ShownScene, read_scenes, up_of
from tests.support.clips import refusal

UP = np.array([0.0, 0.0, 1.0])  # of the rendered scene


@pytest.fixture(scope="module")
def scene(run):
    return ShownScene.read(run.scenes()[0], 10**6)


def numbered(count, start=0):
    """Points whose x counts them."""
    points = ShownPoints.none()
    fields = {field.name: getattr(points, field.name) for field in dataclasses.fields(points)}
    longer = {name: np.zeros((count, *array.shape[1:]), array.dtype) for name, array in fields.items()}
    longer["points"][:, 0] = np.arange(start, start + count)
    return ShownPoints(**longer)


def test_all_points_of_the_cloud_are_drawn_with_their_values(run, true_run, scene):
    images = list(run.scenes()[0].images())
    assert len(scene.points) == scene.total == sum(image.kept.sum() for image in images) > 1000
    t, v = 1, 1
    (image,) = (image for image in images if (image.t, image.v) == (t, v))
    part = ShownPoints.of(image)
    assert np.allclose(part.points, true_run.points[t, v][image.kept], atol=1e-4)
    assert np.allclose(part.depth, true_run.depth[t, v][image.kept], atol=1e-4)
    assert np.array_equal(part.colours, image.pixels[image.kept])
    assert set(part.t) == {t}


def test_points_are_dynamic_where_the_mask_says_so(run, scene):
    masks = [image.mask[image.kept] for image in run.scenes()[0].images()]
    assert scene.points.dynamic.sum() == (np.concatenate(masks) >= 0.5).sum() > 0
    assert not scene.points.dynamic.all()


@pytest.mark.parametrize("most", [1, 7, 100, 1000])
def test_thinned_points_are_evenly_spaced_and_of_the_number_that_was_asked_for(most):
    thinning, start = Thinning(most), 0
    for count in (0, 13, 5, 400, 1, 299, 282):
        thinning.add(numbered(count, start))
        start += count
    kept = thinning.points().points[:, 0]
    assert thinning.total == start == 1000
    assert len(kept) <= most and len(kept) > 0.49 * most
    steps = np.diff(kept)
    assert not steps.size or (steps.min() >= 1 and steps.max() <= 2 * steps.min() + 1)


def test_a_share_of_the_points_is_drawn_where_there_are_too_many(run):
    (scene,) = read_scenes(run, 500)
    assert 250 <= len(scene.points) <= 500 < scene.total
    assert set(scene.points.t) == {0, 1, 2}


def test_a_camera_is_drawn_where_it_is_and_sees_what_its_photo_shows(run, true_run, scene):
    image = scene.images[3]
    camera = true_run.cameras[1][1]
    assert (image.t, image.v, image.camera_name, image.frame_name) == (1, 1, "cam1", "000001")
    assert np.allclose(image.pose[:3, 3], camera.centre, atol=1e-6)
    assert np.isclose(np.tan(image.fov / 2), camera.height / 2 / camera.K[1, 1], rtol=1e-6)
    assert np.isclose(image.aspect, camera.width / camera.height, rtol=0.01)
    photo = next(image for image in run.scenes()[0].images() if (image.t, image.v) == (1, 1)).pixels
    assert np.abs(image.photo().astype(int) - photo).mean() < 12  # JPEG
    assert np.isclose(image.distance, np.median(true_run.depth[1, 1]), rtol=0.1)


def test_a_picture_of_another_aspect_shows_all_that_a_camera_sees(scene):
    image = scene.images[0]
    half = np.tan(image.fov / 2)
    assert np.isclose(image.fov_in(10.0), image.fov)
    assert np.isclose(np.tan(image.fov_in(0.5) / 2) * 0.5, half * image.aspect)


def test_a_camera_without_pose_or_focal_length_is_left_out_of_what_is_posed(run):
    image = next(run.scenes()[0].images())
    lost = dataclasses.replace(image.calibration, camera_to_world=np.full((4, 4), np.nan))
    assert ShownImage.of(dataclasses.replace(image, calibration=lost)).pose is None


def test_up_is_that_of_level_cameras_that_look_down_on_a_scene(true_run):
    poses = np.stack([np.eye(4)] * 2)
    for pose, camera in zip(poses, true_run.cameras[0], strict=True):
        pose[:3, :3] = camera.world_to_camera[:, :3].T
    assert up_of(poses) @ UP > 0.999


def test_up_is_that_of_the_pictures_where_all_cameras_look_one_way():
    assert np.allclose(up_of(np.stack([np.eye(4)] * 3)), [0, -1, 0])
    assert np.allclose(up_of(np.zeros((0, 4, 4))), [0, -1, 0])


def test_the_start_view_is_level_and_shows_points_and_cameras(scene):
    pose, distance = scene.overview
    assert np.isclose(np.linalg.det(pose[:3, :3]), 1)
    assert abs(pose[:3, 0] @ scene.up) < 1e-9, "the horizon is tilted"
    assert pose[:3, 2] @ scene.up < 0, "not from above"
    shown = np.concatenate([scene.points.points, scene.poses[:, :3, 3]])
    seen = (shown - pose[:3, 3]) @ pose[:3, :3]
    assert np.mean(seen[:, 2] > 0) == 1 and 0 < distance < 10 * scene.extent
    assert np.mean(np.abs(seen[:, :2] / seen[:, 2:]).max(1) < 1) > 0.95


def test_the_unit_and_the_name_of_a_scene_are_kept(apart):
    scenes = read_scenes(apart, 1000)
    assert [scene.name for scene in scenes] == [window.name for window in apart.summary.windows]
    assert [list(scene.times) for scene in scenes] == [[0, 1], [2, 3]]
    assert {scene.unit for scene in scenes} == {"the clip's own unit"}
    assert sum(len(scene.points) for scene in scenes) <= 1000


def test_a_run_with_nothing_to_look_at_is_refused(run, monkeypatch):
    nothing = ShownScene(name="", unit="", points=ShownPoints.none(), total=0, images=[])
    monkeypatch.setattr(ShownScene, "read", lambda *arguments: nothing)
    refusal(lambda: read_scenes(run, 1000), "neither points nor cameras", run.path, "report.html")


def test_colours_are_the_photos_or_those_of_the_map(scene):
    points = scene.points
    assert np.array_equal(Coloured.by(Colour.PHOTO, points, "m").colours, points.colours)
    mask = Coloured.by(Colour.MASK, points, "m")
    ends = np.rint(colour_map(256)[[0, -1]]).astype(np.uint8)
    assert (mask.colours[points.mask == 0] == ends[0]).all() and (mask.colours[points.mask == 1] == ends[1]).all()
    depth = Coloured.by(Colour.DEPTH, points, "metres")
    assert (depth.colours[points.depth.argmin()] == ends[1]).all(), "near is not bright"
    assert (depth.colours[points.depth.argmax()] == ends[0]).all()
    assert "metres" in depth.legend and (depth.bar[0] == ends[1]).all()


def test_points_without_a_value_are_grey_and_nothing_can_be_coloured_by_what_is_not_there(scene):
    unknown = dataclasses.replace(scene.points, mask=np.full(len(scene.points), np.nan, np.float32))
    assert available(scene.points) == list(Colour)
    assert available(unknown) == [Colour.PHOTO, Colour.DEPTH, Colour.CONFIDENCE]
    assert not unknown.dynamic.any()
    assert (Coloured.by(Colour.MASK, unknown, "m").colours == 112).all()
