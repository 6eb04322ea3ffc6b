"""`transforms.json` of the rendered scene, read by nothing but the format's conventions.

A camera's axes are OpenGL's (x right, y up, z backward), its pose is camera to world, the world is that of the points;
the centre of a photo's first pixel is (0.5, 0.5); paths are relative to the file.
"""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.formats.nerfstudio import write_nerfstudio
from page4d_engines.results.scene.cloud_options import CloudOptions
from tests.engines.results.ply import columns, read_ply
from tests.support.true_run import write_true_run


def scene_of(run, **options):
    (scene,) = FinishedRun.open(run.out, options=CloudOptions(**options) if options else None).scenes()
    return scene


def project(frame, points):
    """Where a frame's photo shows points of the world, `[n,2]`, and which of them lie in front of its camera."""
    pose = np.array(frame["transform_matrix"])
    x, y, z = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    u = frame["fl_x"] * x / -z + frame["cx"]
    v = -frame["fl_y"] * y / -z + frame["cy"]
    return np.stack([u, v], 1), z < 0


def check_against_truth(folder, run, tolerance=0.05):
    """Photos, cameras, poses and points are those of the rendered scene."""
    document = json.loads((folder / "transforms.json").read_text())
    vertices = read_ply(folder / document["ply_file_path"])
    points = columns(vertices, *"xyz").astype(np.float64)
    assert len(points) and document["camera_model"] == "PINHOLE"
    truth = [camera for row in run.cameras for camera in row]
    assert len(document["frames"]) == len(truth)
    for frame, camera in zip(document["frames"], truth, strict=True):
        with Image.open(folder / frame["file_path"]) as photo:
            assert photo.size == (frame["w"], frame["h"]) == (camera.width, camera.height)
        pixels, in_front = project(frame, points)
        places = points @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]
        expected = places[:, :2] / places[:, 2:] * camera.K[[0, 1], [0, 1]] + camera.K[:2, 2]
        np.testing.assert_array_equal(in_front, places[:, 2] > 0)
        inside = in_front & (np.abs(expected - camera.K[:2, 2]) < (camera.width, camera.height)).all(1)
        assert inside.any() and np.abs(pixels - expected)[inside].max() < tolerance


@pytest.mark.parametrize(
    ("photos", "fit"),
    [(None, None), ((168, 112), None), ((126, 150), "crop"), ((80, 160), "pad"), ((100, 105), "stretch")],
)
@pytest.mark.parametrize("form", ["pi3", "vggt"])
def test_photos_and_points_go_together_whatever_the_fit(tmp_path, photos, fit, form):
    run = write_true_run(tmp_path, form=form, T=1, V=2, size=(56, 84), photo_size=photos, fit=fit)
    written = write_nerfstudio(tmp_path, scene_of(run))
    assert written.files == [tmp_path / "transforms.json", tmp_path / "points.ply"] and not written.warnings
    check_against_truth(tmp_path, run)


@settings(max_examples=6, deadline=None)
@given(width=st.integers(30, 130), height=st.integers(30, 130), fit=st.sampled_from(["crop", "pad", "stretch"]))
def test_photos_of_any_size(tmp_path_factory, width, height, fit):
    folder = tmp_path_factory.mktemp("run")
    run = write_true_run(folder, form="vggt", T=1, V=2, size=(28, 42), photo_size=(width, height), fit=fit)
    write_nerfstudio(folder, scene_of(run))
    check_against_truth(folder, run)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two timesteps of two cameras."""
    return write_true_run(tmp_path_factory.mktemp("run"), T=2, V=2, size=(56, 84), orbit=0.05)


def test_paths_lead_from_where_the_files_will_lie(run, tmp_path):
    staging, final = tmp_path / "a" / "b" / "staging", tmp_path / "final"
    staging.mkdir(parents=True)
    write_nerfstudio(staging, scene_of(run), place=final)
    staging.rename(final)
    check_against_truth(final, run)
    frames = json.loads((final / "transforms.json").read_text())["frames"]
    assert not any(pathlib.PurePosixPath(frame["file_path"]).is_absolute() for frame in frames)


def test_max_points_is_kept_to(run, tmp_path):
    write_nerfstudio(tmp_path, scene_of(run, max_points=250))
    assert len(read_ply(tmp_path / "points.ply")) == 250


def test_images_without_a_pose_are_left_out_with_a_warning(run, tmp_path):
    scene = scene_of(run)

    class Lost(type(scene)):
        def images(self):
            for image in super().images():
                unknown = dataclasses.replace(image.calibration.camera, K=np.full((3, 3), np.nan))
                lost = dataclasses.replace(image.calibration, camera=unknown)
                yield dataclasses.replace(image, calibration=lost) if image.v else image

    written = write_nerfstudio(tmp_path, Lost(scene.name, scene.windows, scene.run))
    frames = json.loads((tmp_path / "transforms.json").read_text())["frames"]
    assert [pathlib.PurePosixPath(frame["file_path"]).parent.name for frame in frames] == ["cam0", "cam0"]
    (warning,) = written.warnings
    assert "cam1/000000, cam1/000001" in warning and "not in transforms.json" in warning


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write_nerfstudio(tmp_path / "a", scene_of(run))
    second = write_nerfstudio(tmp_path / "b", scene_of(run))
    assert [file.read_bytes() for file in first.files] == [file.read_bytes() for file in second.files]
