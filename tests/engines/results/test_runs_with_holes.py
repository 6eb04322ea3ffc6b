"""`page4d-run` over clips in which cameras lack frames: windows with holes, and nothing of what is not there."""

import json

import numpy as np
import pytest
import trimesh
from PIL import Image
from safetensors.numpy import load_file

from page4d.cameras import read_cameras
from page4d_engines.options import Format
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.summary import read_summary
from page4d_export.sample_scene.clip import render, save
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import refused, run

ALL = ",".join(Format)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Seven timesteps of two cameras, of which the first loses three and the second the last."""
    folder = tmp_path_factory.mktemp("holes") / "clip"
    save(render(7, 2, 90, 70), folder)
    for camera, times in (("cam0", (0, 1, 5)), ("cam1", (6,))):
        for t in times:
            for kind in ("frames", "masks"):
                (folder / kind / camera / f"{t:06d}.png").unlink()
    return folder


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """Two timesteps of three cameras, the first of which lacks the first."""
    folder = tmp_path_factory.mktemp("views") / "clip"
    save(render(2, 3, 90, 70), folder)
    (folder / "frames" / "cam0" / "000000.png").unlink()
    return folder / "frames"


@pytest.fixture(scope="module")
def whole(made, views, tmp_path_factory):
    """A run of engines with heads that wrote every format."""
    out = tmp_path_factory.mktemp("whole") / "out"
    done = run(made("pi3", absent_views=True).folder, views, "-o", out, "--formats", ALL, "--max-points", 500)
    assert done.returncode == 0, done.stderr
    return out, done.stderr


def numbers(value):
    """Every number in a JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if isinstance(value, int | float) else []


def test_windows_with_holes_are_run_counted_and_said(made, clip, tmp_path):
    out = tmp_path / "out"
    done = run(made("default", absent_views=True).folder, clip / "frames", "-o", out, "--stride", 2)
    assert done.returncode == 0, done.stderr
    summary = read_summary(out / "summary.json")
    assert [window.absent for window in summary.windows] == [
        {"cam0": ["000000", "000001"]},
        {},
        {"cam0": ["000005"], "cam1": ["000006"]},
    ]
    assert summary.windows_with_holes == 2
    assert "3 windows (2 with absent images) in" in done.stderr
    assert "camera cam0 has no image at 3 of 7 times: 000000, 000001, 000005" in done.stderr
    assert "camera cam1 has no image at 1 of 7 times: 000006" in done.stderr
    assert "(2 with absent images)" in (out / "report.html").read_text()
    for window in summary.windows:
        assert all(mean is not None for mean in window.mask_mean.values()) and len(window.mask_mean) == 2
        mask = load_file(out / window.file)["mask"]
        times = [f"{t:06d}" for t in range(int(window.first_frame), int(window.last_frame) + 1)]
        for v, camera in enumerate(summary.cameras):
            absent = [time in window.absent.get(camera, []) for time in times]
            np.testing.assert_array_equal(np.isnan(mask[:, v]).all((1, 2)), absent)
            written = {path.stem for path in (out / "masks" / window.name / camera).iterdir()}
            assert written == {time for time, is_absent in zip(times, absent, strict=True) if not is_absent}


def test_engines_that_need_every_image_refuse_the_clip(made, clip, tmp_path):
    refused(
        run(made("default").folder, clip / "frames", "-o", tmp_path / "out"), 2, "different numbers", "--absent-views"
    )


def test_a_run_with_holes_is_the_same_window_by_window(made, clip, tmp_path):
    """A window without holes is what engines for all images give."""
    for name, absent_views in (("holes", True), ("plain", False)):
        folder = clip / "frames"
        if not absent_views:
            folder = tmp_path / "clip" / "frames"
            save(render(7, 2, 90, 70), folder.parent)
            for camera in ("cam0", "cam1"):
                for t in (0, 1, 5, 6):
                    (folder / camera / f"{t:06d}.png").unlink()
        engines = made("default", absent_views=absent_views).folder
        done = run(engines, folder, "--masks", clip / "masks", "-o", tmp_path / name, "--stride", 2)
        assert done.returncode == 0, done.stderr
    middle = load_file(tmp_path / "holes" / "window_2-4.safetensors")
    alone = load_file(next((tmp_path / "plain").glob("*.safetensors")))
    for name, array in alone.items():
        np.testing.assert_allclose(middle[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


def test_every_file_leaves_absent_images_out(whole):
    out, _ = whole
    summary = read_summary(out / "summary.json")
    first, second = summary.windows
    assert first.absent == {"cam0": ["000000"]} and second.absent == {} and summary.windows_with_holes == 1
    assert set(first.predictions.rig) == {"cam1", "cam2"} and set(second.predictions.rig) == {"cam0", "cam1", "cam2"}
    assert not any("no pose" in warning for warning in summary.warnings)
    for window, names in ((first, {"cam1", "cam2"}), (second, {"cam0", "cam1", "cam2"})):
        place = out / window.name
        assert set(read_cameras(place / "cameras.json")) == names
        assert {path.parts[-2] for path in (out / file for file in window.predictions.depth)} == names
        points = columns(read_ply(place / "points.ply"), "x", "y", "z", "confidence")
        assert np.isfinite(points).all() and len(points) > 50
        transforms = json.loads((place / "transforms.json").read_text())
        assert len(transforms["frames"]) == len(names) and np.isfinite(numbers(transforms)).all()
        text = (place / "colmap" / "sparse_text" / "0" / "images.txt").read_text()
        assert all(f"{name}/" in text for name in names) and text.count(".png") == len(names) and "nan" not in text
        scene = trimesh.load(place / "scene.glb")
        assert all(np.isfinite(part.vertices).all() for part in scene.geometry.values() if len(part.vertices))
        arrays = np.load(place / "scene.npz", allow_pickle=False)
        assert all(len(array) == len(names) for name, array in arrays.items() if name in ("images", "depth", "camera"))
        for name in window.predictions.depth:
            with Image.open(out / name) as picture:
                assert np.asarray(picture).any()


def test_a_finished_run_is_read_back_without_absent_images(whole):
    out, _ = whole
    run_ = FinishedRun.open(out)
    scenes = run_.scenes()
    assert [scene.count for scene in scenes] == [2, 3]
    images = [image for scene in scenes for image in scene.images()]
    assert [(image.t, image.camera_name) for image in images] == [
        (0, "cam1"),
        (0, "cam2"),
        (1, "cam0"),
        (1, "cam1"),
        (1, "cam2"),
    ]
    assert all(np.isfinite(image.calibration.camera_to_world).all() for image in images)
