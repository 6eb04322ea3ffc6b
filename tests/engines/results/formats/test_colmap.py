"""COLMAP models of the rendered scene, read by pycolmap and compared with the scene itself."""

import dataclasses
import json

import av
import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.results.finished.finished_run import FinishedRun, photo_path
from page4d_engines.results.formats.colmap import write_colmap as module
from page4d_engines.results.formats.colmap.tracks import moving_pixels
from page4d_engines.results.formats.colmap.write_colmap import BINARY, TEXT, write_colmap
from page4d_engines.results.formats.nerfstudio import write_nerfstudio
from page4d_engines.results.scene.cloud_options import CloudOptions
from tests.support.true_run import write_true_run

SIZE = (56, 84)  # height and width of the engines' images
PHOTOS = {  # width and height, fit
    "as they are": (None, None),
    "larger": ((168, 112), None),
    "cut above and below": ((126, 150), "crop"),
    "cut left and right": ((170, 70), "crop"),
    "padded": ((80, 160), "pad"),
    "stretched": ((100, 105), "stretch"),
    "as published, rows cut": ((101, 143), "published"),
}


def run_of(folder, photos, fit, form="pi3", T=1, V=3, **more):
    size = (84, 84) if fit == "published" else SIZE
    return write_true_run(folder, form=form, T=T, V=V, size=size, photo_size=photos, fit=fit, **more)


def scene_of(run, **options):
    (scene,) = FinishedRun.open(run.out, options=CloudOptions(**options) if options else None).scenes()
    return scene


def changed(scene, change):
    """The scene with another image in the place of each."""

    class Changed(type(scene)):
        def images(self):
            return map(change, super().images())

    return Changed(scene.name, scene.windows, scene.run)


def read(folder, kind=BINARY):
    return pycolmap.Reconstruction(str(folder / kind))


def observations(model, image):
    """Of an image: where it sees points `[n,2]`, the points `[n,3]`, and their numbers."""
    numbers = [point.point3D_id for point in image.points2D]
    seen = np.array([point.xy for point in image.points2D]).reshape(-1, 2)
    return seen, np.array([model.points3D[number].xyz for number in numbers]).reshape(-1, 3), numbers


def true_pixels(camera, points):
    """Where a true camera sees points of the world."""
    places = points @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]
    return places[:, :2] / places[:, 2:] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]


def check_against_truth(model, run, tolerance=0.01):
    """Every camera, pose and observation is the rendered scene's; places in pixels of the photo."""
    truth = {f"cam{v}/{t:06d}.png": camera for t, row in enumerate(run.cameras) for v, camera in enumerate(row)}
    assert sorted(image.name for image in model.images.values()) == sorted(truth)
    for image in model.images.values():
        camera, true = model.cameras[image.camera_id], truth[image.name]
        assert camera.model == pycolmap.CameraModelId.PINHOLE
        assert (camera.width, camera.height) == (true.width, true.height)
        expected = [true.K[0, 0], true.K[1, 1], true.K[0, 2], true.K[1, 2]]
        np.testing.assert_allclose(camera.params, expected, rtol=1e-4)
        np.testing.assert_allclose(image.cam_from_world().matrix(), true.world_to_camera, atol=1e-6)
        seen, points, _ = observations(model, image)
        assert len(seen) > 100
        assert np.abs(seen - true_pixels(true, points)).max() < tolerance
        assert (seen >= 0).all() and (seen <= (true.width, true.height)).all()


@pytest.mark.parametrize("form", ["pi3", "vggt"])
@pytest.mark.parametrize("photos", PHOTOS)
def test_models_are_the_rendered_scene_in_the_photos_pixels(tmp_path, photos, form):
    run = run_of(tmp_path, *PHOTOS[photos], form=form)
    written = write_colmap(tmp_path, scene_of(run))
    assert written.warnings == () and len(written.files) == 6
    model, text = read(tmp_path), read(tmp_path, TEXT)
    check_against_truth(model, run)
    assert model.is_valid()
    places = np.array([point.xyz for point in model.points3D.values()])
    surface = run.points.reshape(-1, 3)
    assert max(np.abs(surface - place).sum(-1).min() for place in places[::97]) < 1e-4
    stated = model.compute_mean_reprojection_error()
    model.update_point_3d_errors()
    assert stated == pytest.approx(model.compute_mean_reprojection_error(), abs=1e-9) and stated < 1e-3

    assert set(text.points3D) == set(model.points3D)
    for number, point in model.points3D.items():
        other = text.points3D[number]
        assert (point.xyz == other.xyz).all() and (point.color == other.color).all()
        assert [(e.image_id, e.point2D_idx) for e in point.track.elements] == [
            (e.image_id, e.point2D_idx) for e in other.track.elements
        ]
    for number, image in model.images.items():
        assert image.name == text.images[number].name
        np.testing.assert_array_equal(observations(model, image)[0], observations(text, text.images[number])[0])
        np.testing.assert_array_equal(image.cam_from_world().matrix(), text.images[number].cam_from_world().matrix())
        assert (model.cameras[image.camera_id].params == text.cameras[image.camera_id].params).all()


@settings(max_examples=6, deadline=None)
@given(
    width=st.integers(30, 130),
    height=st.integers(30, 130),
    fit=st.sampled_from(["crop", "pad", "stretch"]),
    form=st.sampled_from(["pi3", "vggt"]),
)
def test_photos_of_any_size_and_fit(tmp_path_factory, width, height, fit, form):
    folder = tmp_path_factory.mktemp("run")
    run = write_true_run(folder, form=form, T=1, V=2, size=(28, 42), photo_size=(width, height), fit=fit)
    write_colmap(folder, scene_of(run))
    model = read(folder)
    truth = {f"cam{v}/000000.png": camera for v, camera in enumerate(run.cameras[0])}
    assert len(model.images) == 2 and model.points3D
    for image in model.images.values():
        seen, points, _ = observations(model, image)
        assert np.abs(seen - true_pixels(truth[image.name], points)).max(initial=0) < 0.05


def test_points_are_seen_where_the_photo_has_their_colour(tmp_path):
    # half a pixel off, another pixel would be looked up as often as not
    run = run_of(tmp_path, None, None)
    write_colmap(tmp_path, scene_of(run))
    model = read(tmp_path)
    checked = 0
    for image in model.images.values():
        photo = np.asarray(Image.open(run.frames / "frames" / image.name))
        for point in image.points2D:
            if (point.xy % 1 == 0.5).all():  # the image's own point; those of others lie between pixels
                column, row = np.floor(point.xy).astype(int)
                assert (photo[row, column] == model.points3D[point.point3D_id].color).all()
                checked += 1
    assert checked == len(model.points3D) > 1000


def test_tracks_join_the_images_that_see_the_same_surface(tmp_path):
    run = run_of(tmp_path, (168, 112), None, V=4)
    write_colmap(tmp_path, scene_of(run))
    model = read(tmp_path)
    lengths = np.array([point.track.length() for point in model.points3D.values()])
    assert lengths.max() == 4 and (lengths >= 2).mean() > 0.5
    views = {f"cam{v}/000000.png": v for v in range(4)}
    for image in model.images.values():
        seen, points, _ = observations(model, image)
        # what the true surface there shows is as far away as the point: nothing stands in front of it
        v = views[image.name]
        columns, rows = np.floor(seen * 0.5).astype(int).T
        depth = run.depth[0, v, rows.clip(0, 55), columns.clip(0, 83)]
        camera = run.cameras[0][v]
        z = points @ camera.world_to_camera[2, :3] + camera.world_to_camera[2, 3]
        assert (np.abs(z - depth) < 0.05 * depth).mean() > 0.99
    # each image once in a track
    for point in model.points3D.values():
        images = [element.image_id for element in point.track.elements]
        assert len(images) == len(set(images))


def test_moving_points_have_no_tracks_through_time(tmp_path):
    run = run_of(tmp_path, None, None, T=3, V=2, mask=True, orbit=0.03)
    scene = scene_of(run)
    moving = {image.photo: moving_pixels(image) for image in scene.images()}
    assert any(mask.any() for mask in moving.values())
    write_colmap(tmp_path, scene)
    model = read(tmp_path)
    times = {number: int(image.name.split("/")[1][:6]) for number, image in model.images.items()}
    through_time = at_one_time = 0
    for point in model.points3D.values():
        sees = [(element.image_id, element.point2D_idx) for element in point.track.elements]
        places = {number: model.images[number].points2D[index].xy for number, index in sees}
        pixels = {number: tuple(np.floor(xy).astype(int)[::-1]) for number, xy in places.items()}
        (own,) = (number for number, xy in places.items() if (xy % 1 == 0.5).all())
        others = {number for number in places if times[number] != times[own]}
        dynamic = {number for number, pixel in pixels.items() if moving[model.images[number].name][pixel]}
        assert not (others and own in dynamic) and not others & dynamic
        through_time += bool(others)
        at_one_time += own in dynamic
    assert through_time > 100 and at_one_time > 10


def test_max_points_is_kept_to_and_has_a_default(tmp_path, monkeypatch):
    run = run_of(tmp_path, None, None)
    write_colmap(tmp_path, scene_of(run, max_points=500))
    model = read(tmp_path)
    assert 350 < len(model.points3D) <= 500
    counts = [image.num_points3D for image in model.images.values()]
    assert min(counts) > 50
    monkeypatch.setattr(module, "MOST_POINTS", 700)
    write_colmap(tmp_path, scene_of(run))
    assert 500 < len(read(tmp_path).points3D) <= 700


def test_points_that_no_second_image_sees_are_left_out_unless_hardly_any_are_left(tmp_path):
    run = run_of(tmp_path, None, None)
    scene = scene_of(run)
    write_colmap(tmp_path, scene)
    model = read(tmp_path)
    assert min(point.track.length() for point in model.points3D.values()) == 2
    assert 1000 < len(model.points3D) < sum(int(image.kept.sum()) for image in scene.images())

    alone = write_true_run(tmp_path / "alone", T=1, V=1, size=SIZE)
    written = write_colmap(tmp_path / "alone", scene_of(alone))
    model = read(tmp_path / "alone")
    assert len(model.points3D) > 1000 and {point.track.length() for point in model.points3D.values()} == {1}
    assert "hardly any point is seen by a second image" in written.warnings[0]
    check_against_truth(model, alone)


def test_observations_of_many_images_are_bounded(tmp_path, monkeypatch):
    run = run_of(tmp_path, None, None, V=3)
    write_colmap(tmp_path, scene_of(run))
    whole = read(tmp_path).compute_num_observations()
    monkeypatch.setattr(module, "_MOST_SEEN", 600)
    monkeypatch.setattr(module, "_FEWEST_SEEN", 10)
    write_colmap(tmp_path, scene_of(run))
    model = read(tmp_path)
    assert model.compute_num_observations() <= len(model.points3D) + 600 < whole
    check_against_truth(model, run)


def test_each_photo_has_a_camera_or_those_of_a_folder_and_size_share_one(tmp_path):
    run = run_of(tmp_path, (168, 112), None, T=2, V=2)
    scene = scene_of(run)
    write_colmap(tmp_path, scene)
    assert len(read(tmp_path).cameras) == 4
    write_colmap(tmp_path, scene, shared_camera=True)
    model = read(tmp_path)
    folders = {image.camera_id: image.name.split("/")[0] for image in model.images.values()}
    assert sorted(folders.values()) == ["cam0", "cam1"]
    check_against_truth(model, run)


def test_the_shared_camera_is_the_median_and_its_misfit_is_in_the_errors(tmp_path, monkeypatch):
    run = run_of(tmp_path, (168, 112), None, T=1, V=3)
    scene = scene_of(run)
    flat = changed(scene, lambda image: dataclasses.replace(image, photo=image.photo.replace("/", "-")))
    write_colmap(tmp_path, flat, shared_camera=True)
    model = read(tmp_path)
    (camera,) = model.cameras.values()
    focal = np.median([camera.K[0, 0] for camera in run.cameras[0]])
    assert camera.focal_length_x == pytest.approx(focal, rel=1e-4)
    stated = model.compute_mean_reprojection_error()
    model.update_point_3d_errors()
    assert stated == pytest.approx(model.compute_mean_reprojection_error(), abs=1e-9) and stated > 0.1


def test_images_without_a_pose_are_left_out_with_a_warning(tmp_path):
    run = run_of(tmp_path, None, None)
    scene = scene_of(run)

    def without_poses(*views):
        def change(image):
            unknown = dataclasses.replace(image.calibration.camera, world_to_camera=np.full((3, 4), np.nan))
            lost = dataclasses.replace(image.calibration, camera=unknown)
            return dataclasses.replace(image, calibration=lost) if image.v in views else image

        return changed(scene, change)

    written = write_colmap(tmp_path / "some", without_poses(1))
    assert "cam1" in written.warnings[0] and "not in the COLMAP model" in written.warnings[0]
    names = sorted(image.name for image in read(tmp_path / "some").images.values())
    assert names == ["cam0/000000.png", "cam2/000000.png"]
    written = write_colmap(tmp_path / "none", without_poses(0, 1, 2))
    assert written.files == [] and "no COLMAP model" in written.warnings[-1]
    assert not (tmp_path / "none").exists()


def test_frames_of_a_video_are_written_for_programs_that_read_photos(tmp_path):
    run = run_of(tmp_path, None, None, T=3, V=2)
    videos = tmp_path / "videos"
    videos.mkdir()
    for v in range(2):
        frames = [np.asarray(Image.open(run.frames / "frames" / f"cam{v}" / f"{t:06d}.png")) for t in range(3)]
        with av.open(str(videos / f"cam{v}.mkv"), "w") as container:
            track = container.add_stream("ffv1", rate=24)
            track.width, track.height, track.pix_fmt = 84, 56, "bgr0"
            for frame in frames:
                container.mux(track.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(track.encode())
    clip = FrameFolder.open(videos)
    of_video = changed(
        scene_of(run), lambda image: dataclasses.replace(image, clip=clip, photo=photo_path(clip, image.t, image.v))
    )
    written = write_colmap(tmp_path / "out", of_video)
    names = [f"cam{v}/{t:06d}.png" for t in range(3) for v in range(2)]
    assert written.files[6:] == [tmp_path / "out" / "images" / name for name in names]
    assert sorted(image.name for image in read(tmp_path / "out").images.values()) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(
            np.asarray(Image.open(tmp_path / "out" / "images" / name)),
            np.asarray(Image.open(run.frames / "frames" / name)),
        )
    # nerfstudio's file names the same frames, and does not write them again
    again = write_nerfstudio(tmp_path / "out", of_video)
    assert len(again.files) == 2
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert [frame["file_path"] for frame in frames] == [f"images/{name}" for name in names]


def test_cameras_without_points_are_a_model(tmp_path):
    run = run_of(tmp_path, None, None)
    bare = changed(scene_of(run), lambda image: dataclasses.replace(image, kept=np.zeros_like(image.kept)))
    assert write_colmap(tmp_path, bare).warnings == ()
    for kind in (BINARY, TEXT):
        model = read(tmp_path, kind)
        assert len(model.images) == len(model.cameras) == 3 and not model.points3D


def test_points_with_noise_in_their_depth_still_have_tracks(tmp_path):
    run = run_of(tmp_path, (168, 112), None, V=4, noise=0.005)
    assert write_colmap(tmp_path, scene_of(run)).warnings == ()
    model = read(tmp_path)
    assert len(model.points3D) > 2000 and model.compute_mean_track_length() > 2.5
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 0.01  # it lies along the rays


def test_names_with_spaces_are_in_the_binary_model_alone(tmp_path):
    run = run_of(tmp_path, None, None)
    spaced = changed(scene_of(run), lambda image: dataclasses.replace(image, photo=f"my photos/ä {image.v}.png"))
    written = write_colmap(tmp_path, spaced)
    assert "spaces" in written.warnings[0] and not (tmp_path / TEXT).exists()
    names = {number: image.name for number, image in read(tmp_path).images.items()}
    assert names == {v + 1: f"my photos/ä {v}.png" for v in range(3)}


def test_the_same_run_gives_the_same_bytes(tmp_path):
    run = run_of(tmp_path, (168, 112), None)
    first = write_colmap(tmp_path / "a", scene_of(run, max_points=900))
    second = write_colmap(tmp_path / "b", scene_of(run, max_points=900))
    assert [file.read_bytes() for file in first.files] == [file.read_bytes() for file in second.files]


def test_bundle_adjustment_finds_displaced_points_again(tmp_path):
    run = run_of(tmp_path, (168, 112), None, V=4)
    write_colmap(tmp_path, scene_of(run, max_points=1500))
    model, truth = read(tmp_path), read(tmp_path)
    chance = np.random.default_rng(0)
    for point in model.points3D.values():
        point.xyz = point.xyz + 0.02 * chance.standard_normal(3)
    model.update_point_3d_errors()
    before = model.compute_mean_reprojection_error()
    pycolmap.bundle_adjustment(model, pycolmap.BundleAdjustmentOptions(refine_rig_from_world=False))
    model.update_point_3d_errors()
    assert before > 0.5 and model.compute_mean_reprojection_error() < 0.01
    joined = [number for number, point in model.points3D.items() if point.track.length() >= 3]
    off = [np.linalg.norm(model.points3D[number].xyz - truth.points3D[number].xyz) for number in joined]
    assert len(joined) > 200 and np.median(off) < 1e-3
