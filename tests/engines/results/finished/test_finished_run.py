"""A finished run read back: true geometry in, the same out; and which folders and clips are refused."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from page4d.cameras import read_cameras
from page4d.errors import UsageError
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.scene.cloud_options import CloudOptions
from page4d_engines.results.summary import read_summary
from page4d_engines.results.world.similarity import Similarity
from page4d_export.sample_scene.clip import render, save
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import run
from tests.support.true_run import write_true_run


def turn(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def project(image):
    """Where the image's camera sees its points in the photo, `[H,W,2]`."""
    camera = image.calibration.camera
    seen = image.points @ camera.world_to_camera[:, :3].T + camera.world_to_camera[:, 3]
    seen = seen @ camera.K.T
    return seen[..., :2] / seen[..., 2:]


@pytest.mark.parametrize(
    ("photo_size", "fit", "off"),
    [(None, None, 1e-3), ((224, 168), None, 1e-3), ((160, 90), "crop", 1e-3), ((150, 150), "stretch", 1e-3)],
    ids=["own size", "twice the size", "crop", "stretch"],
)
def test_the_geometry_of_photos_of_any_fit_is_the_true_one(tmp_path, photo_size, fit, off):
    true = write_true_run(tmp_path, T=2, V=2, photo_size=photo_size, fit=fit)
    (scene,) = FinishedRun.open(true.out).scenes()
    images = list(scene)
    assert [(image.t, image.v) for image in images] == [(0, 0), (0, 1), (1, 0), (1, 1)] and scene.count == 4
    for image in images:
        expected = true.cameras[image.t][image.v]
        np.testing.assert_allclose(image.points, true.points[image.t, image.v], atol=1e-5)
        np.testing.assert_allclose(image.depth, true.depth[image.t, image.v], rtol=1e-5)
        np.testing.assert_allclose(image.calibration.camera.K, expected.K, atol=0.01)
        np.testing.assert_allclose(image.calibration.camera.world_to_camera, expected.world_to_camera, atol=1e-6)
        assert (image.calibration.camera.width, image.calibration.camera.height) == (expected.width, expected.height)
        assert abs(project(image) - image.photo_pixels()).max() < off
        assert image.source().size == (expected.width, expected.height)
        assert image.mask is None and image.confidence.shape == image.kept.shape == image.depth.shape
        assert (true.frames / "frames" / image.photo).is_file() and image.photo == f"{image.name}.png"


def test_a_padded_photo_has_no_confidence_beside_it(tmp_path):
    true = write_true_run(tmp_path, T=1, V=1, photo_size=(160, 90), fit="pad")
    (image,) = FinishedRun.open(true.out).scenes()[0]
    shown = image.fit.shown
    assert np.isnan(image.confidence[~shown]).all() and (image.confidence[shown] > 0.9).all()
    assert not image.kept[~shown].any() and image.kept[shown].any()
    x, y = np.moveaxis(image.photo_pixels(), -1, 0)
    inside = (x > 0) & (x < 160) & (y > 0) & (y < 90)
    assert np.array_equal(inside, shown)


def test_windows_that_share_a_world_are_one_scene_with_each_image_once(tmp_path):
    worlds = [Similarity.identity(), Similarity(2.0, turn(0.4), np.array([1.0, -2.0, 0.5]))]
    options = {"form": "vggt", "T": 4, "V": 1, "window": 3, "stride": 1, "orbit": 0.1, "mask": True, "worlds": worlds}
    true = write_true_run(tmp_path / "aligned", aligned=True, **options)
    (scene,) = FinishedRun.open(true.out).scenes()
    images = list(scene)
    assert scene.name == "" and [image.frame_name for image in images] == ["000000", "000001", "000002", "000003"]
    assert [image.window for image in images] == ["window_0-2"] * 3 + ["window_1-3"]
    for image in images:
        np.testing.assert_allclose(image.points, true.points[image.t, 0], atol=1e-4)
        np.testing.assert_allclose(image.depth, true.depth[image.t, 0], rtol=1e-5)
        pose = np.linalg.inv(image.calibration.camera_to_world)[:3]
        np.testing.assert_allclose(pose, true.cameras[image.t][0].world_to_camera, atol=1e-6)
        np.testing.assert_allclose(image.calibration.camera.world_to_camera, pose, atol=1e-9)
        moving = true.moving[image.t, 0].reshape(6, 14, 8, 14).mean((1, 3))
        np.testing.assert_allclose(image.mask, np.kron(moving, np.ones((14, 14))), atol=1e-6)

    # without a common world each window is a scene, in its own unit
    apart = write_true_run(tmp_path / "apart", **options)
    scenes = FinishedRun.open(apart.out).scenes()
    assert [scene.name for scene in scenes] == ["window_0-2", "window_1-3"]
    later = list(scenes[1])
    assert [image.frame_name for image in later] == ["000001", "000002", "000003"]
    np.testing.assert_allclose(later[0].depth * 2, true.depth[1, 0], rtol=1e-5)


def test_a_scene_is_read_again_and_twice_at_a_time(tmp_path):
    true = write_true_run(tmp_path, form="vggt", T=4, V=1, window=2)
    scene = FinishedRun.open(true.out).scenes()[0]
    pixels = [image.pixels for image in scene]
    assert not np.array_equal(*pixels)  # arrays of their own
    for first, second in zip(scene, scene.images(), strict=True):
        assert first.name == second.name and np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize(("variant", "T", "V"), [("pi3", 1, 3), ("page4d 2026", 4, 1)])
def test_the_kept_pixels_of_real_engines_are_the_points_of_their_file(made, tmp_path, variant, T, V):
    save(render(T, V, 90, 70), tmp_path / "clip")
    flags = ["--confidence-percentile", 30, "--edge-normal", 85, "--max-points", 900, "--stride", 1]
    done = run(made(variant).folder, tmp_path / "clip", "-o", tmp_path / "out", *flags)
    assert done.returncode == 0, done.stderr
    opened = FinishedRun.open(tmp_path / "out")
    assert opened.options == CloudOptions(confidence_percentile=30.0, normals=85.0, max_points=900)
    for scene in opened.scenes():
        images = list(scene)
        (window,) = scene.windows
        vertices = read_ply(tmp_path / "out" / window.predictions.cloud)
        assert 0 < len(vertices) <= 900 and len(vertices) == window.predictions.points
        of_images = [
            np.concatenate([getattr(image, name)[image.kept] for image in images])
            for name in ("points", "pixels", "confidence")
        ]
        np.testing.assert_allclose(columns(vertices, "x", "y", "z"), of_images[0], rtol=1e-6)
        assert np.array_equal(columns(vertices, "red", "green", "blue"), of_images[1])
        assert np.array_equal(vertices["confidence"], of_images[2])
        known = read_cameras(tmp_path / "out" / window.predictions.cameras)
        assert list(known) == [image.name for image in images]
        for image in images:
            np.testing.assert_allclose(known[image.name].K, image.calibration.camera.K)
            assert (image.mask is None) == (variant == "pi3")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_true_run(tmp_path_factory.mktemp("run"), T=2, V=1, size=(28, 42))


@pytest.fixture
def copied(original, tmp_path):
    """The run and its clip, elsewhere; the summary names the place where the clip was."""
    shutil.copytree(original.out, tmp_path / "out")
    shutil.copytree(original.frames, tmp_path / "clip")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    summary["frames"] = str(tmp_path / "gone")
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def open_refused(match, *arguments):
    with pytest.raises(UsageError, match=match) as caught:
        FinishedRun.open(*arguments)
    return str(caught.value)


def test_frames_that_are_gone_are_asked_for(copied):
    assert "--frames FOLDER" in open_refused("no longer where they were", copied / "out")
    # a copy of them, whose times of change are others, is taken
    for file in (copied / "clip").rglob("*.png"):
        os.utime(file, (1, 1))
    images = list(FinishedRun.open(copied / "out", copied / "clip").scenes()[0])
    assert len(images) == 2 and images[0].source().size == (42, 28)


@pytest.mark.parametrize("change", ["fewer", "more", "other", "renamed", "empty"])
def test_other_frames_than_the_run_read_are_refused(copied, change):
    folder = copied / "clip" / "frames" / "cam0"
    shutil.rmtree(copied / "clip" / "masks")
    if change == "fewer":
        (folder / "000001.png").unlink()
    elif change == "more":
        shutil.copy(folder / "000001.png", folder / "000002.png")
    elif change == "other":
        Image.new("RGB", (42, 28), (200, 10, 10)).save(folder / "000001.png")
    elif change == "renamed":
        (folder / "000001.png").rename(folder / "000007.png")
    else:
        shutil.rmtree(folder)
    assert "--frames" in open_refused("frames", copied / "out", copied / "clip")


def test_a_clip_read_with_other_masks_is_still_the_runs(copied):
    shutil.rmtree(copied / "clip" / "masks")
    assert FinishedRun.open(copied / "out", copied / "clip").clip.mask_files is None


def test_a_folder_of_several_runs_names_them(made, tmp_path):
    for name in ("a", "b"):
        save(render(1, 3, 70, 56), tmp_path / name)
    done = run(made("pi3").folder, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    message = open_refused("several clips", tmp_path / "out")
    assert "a, b" in message and str(tmp_path / "out" / "a") in message
    assert FinishedRun.open(tmp_path / "out" / "a").scenes()


def test_folders_without_a_run_are_refused(copied):
    open_refused("cannot be read", copied / "clip")
    (copied / "clip" / "summary.json").write_text("{")
    open_refused("damaged", copied / "clip")


def test_a_window_whose_file_is_gone_or_damaged_is_refused(copied):
    (file,) = (copied / "out").glob("*.safetensors")
    file.write_bytes(b"\x00" * 20)
    open_refused("results cannot be read", copied / "out", copied / "clip")
    file.unlink()
    open_refused("results cannot be read", copied / "out", copied / "clip")


def test_static_points_take_a_mask(copied):
    message = open_refused("no mask", copied / "out", copied / "clip", CloudOptions(static_only=True))
    assert "--static-only" in message


def test_a_summary_of_before_these_fields_still_reads(copied, original):
    path = copied / "out" / "summary.json"
    summary = json.loads(path.read_text())
    for name in ("frame_files", "formats", "alignment", "metric"):
        del summary[name]
    for name in ("edges", "normals", "static_only", "max_points", "voxel", "formats", "align", "close_loop", "metric"):
        del summary["made_by"][name]
    for window in summary["windows"]:
        del window["world"], window["predictions"]["formats"]
    path.write_text(json.dumps(summary))
    earlier = read_summary(path)
    assert earlier.made_by == original.summary.made_by
    assert earlier.made_by.cloud == CloudOptions() and earlier.made_by.formats == ("ply",)
    # what it has of the frames includes their times of change, so only those it read are taken
    summary["frames"] = str(copied / "clip")
    path.write_text(json.dumps(summary))
    assert FinishedRun.open(copied / "out").scenes()
    os.utime(copied / "clip" / "frames" / "cam0" / "000000.png", (1, 1))
    open_refused("not those that the run read", copied / "out")
    del summary["made_by"]
    path.write_text(json.dumps(summary))
    assert "page4d-run again" in open_refused("of an earlier version", copied / "out")
