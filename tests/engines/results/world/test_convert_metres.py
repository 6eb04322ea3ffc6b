"""`page4d convert` brings a finished run to metres: by a distance, known cameras, or a metric run of other sizes."""

import json
import shutil

import numpy as np
import pytest

from page4d.cameras import read_cameras
from page4d_engines.commands.convert import convert_command
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.summary import finished, read_summary
from page4d_engines.results.world import metre_scales
from page4d_engines.results.world.similarity import Similarity
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import inside, refused
from tests.support.exports import content
from tests.support.true_run import write_true_run
from tests.support.world.true_windows import random_world

PHOTO = (120, 90)


def convert(*arguments):
    """`page4d convert` in this process."""
    return inside(*arguments, function=convert_command)


def worlds(count, seed):
    chance = np.random.default_rng(seed)
    return [random_world(chance) for _ in range(count)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two cameras at rest in a world of the run's own, the photos cropped."""
    return write_true_run(
        tmp_path_factory.mktemp("run"), T=2, V=2, size=(56, 56), photo_size=PHOTO, fit="crop", worlds=worlds(1, 0)
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same photos, stretched to other engines of the other kind, in another world."""
    return write_true_run(
        tmp_path_factory.mktemp("other"), "vggt", 2, 2, (84, 98), PHOTO, "stretch", worlds=worlds(1, 1)
    )


def copied(run, folder):
    shutil.copytree(run.out, folder)
    return folder


def distance(run):
    return float(np.linalg.norm(run.cameras[0][0].centre - run.cameras[0][1].centre))


def test_a_window_of_a_run_in_metres_still_has_the_engines_unit(original, tmp_path):
    """Its file holds what they gave, so the report's depth is not said to be in metres."""
    out = copied(original, tmp_path / "out")
    assert convert(out, "--known-distance", f"cam0,cam1,{distance(original)}").returncode == 0
    run = FinishedRun.open(out)
    assert [scene.unit for scene in run.scenes()] == ["metres"]
    assert [run.geometry(window).result.unit for window in run.summary.windows] == [None]


def assert_true_scale(out, run, tolerance=1e-3):
    """Lengths are those of the scene."""
    (scene,) = FinishedRun.open(out).scenes()
    image = next(iter(scene.images()))
    np.testing.assert_allclose(image.depth, run.depth[0, 0], rtol=tolerance)
    centres = [camera.centre for camera in read_cameras(out / "cameras.json").values()]
    assert np.linalg.norm(centres[0] - centres[1]) == pytest.approx(distance(run), rel=tolerance)


def test_a_known_distance_changes_every_length_of_the_run(original, tmp_path):
    out = copied(original, tmp_path / "out")
    before = read_summary(out / "summary.json").windows[0]
    done = convert(out, "--known-distance", f"cam0,cam1,{distance(original)}")
    assert done.returncode == 0, done.stderr
    assert_true_scale(out, original)
    summary = read_summary(out / "summary.json")
    (window,) = summary.windows
    scale = original.worlds[0].scale
    assert summary.metric.worlds[""].scale == pytest.approx(scale, rel=1e-4)
    assert window.predictions.depth_scale == pytest.approx(before.predictions.depth_scale * scale, rel=1e-4)
    assert window.predictions.unit == "metres"
    entry = next(iter(json.loads((out / "cameras.json").read_text()).values()))
    assert entry["unit"] == "metres"
    position = next(iter(window.predictions.rig.values())).position
    np.testing.assert_allclose(position, np.array(entry["camera_to_world"])[:3, 3], rtol=1e-5)
    cloud = columns(read_ply(out / "points.ply"), "x", "y", "z")
    away = np.linalg.norm(cloud - position, axis=1)
    assert 0.5 * original.depth.min() < away.min() and away.max() < 2 * original.depth.max()
    assert "Metres" in (out / "report.html").read_text()
    assert finished(out, summary.made_by) == summary
    assert finished(out, original.summary.made_by) is None, "a run without metres would write something else"


def test_metres_are_not_applied_twice(original, tmp_path):
    out = copied(original, tmp_path / "out")
    for _ in range(2):
        assert convert(out, "--known-distance", f"cam0,cam1,{distance(original)}").returncode == 0
        assert_true_scale(out, original)
        scale = read_summary(out / "summary.json").metric.worlds[""].scale
        assert scale == pytest.approx(original.worlds[0].scale, rel=1e-3), "metres per unit that the engines gave"


def test_known_cameras_of_a_rig_bring_the_run_into_their_world(original, tmp_path):
    out = copied(original, tmp_path / "out")
    done = convert(out, "--metric-from", original.frames / "cameras.json")
    assert done.returncode == 0, done.stderr
    assert_true_scale(out, original)
    (scene,) = FinishedRun.open(out).scenes()
    np.testing.assert_allclose(next(iter(scene)).points, original.points[0, 0], atol=0.01)


def test_a_metric_run_with_another_fit_and_size_tells_the_scale(original, other, tmp_path):
    metric, out = copied(other, tmp_path / "metric"), copied(original, tmp_path / "out")
    assert convert(metric, "--metric-from", other.frames / "cameras.json").returncode == 0
    done = convert(out, "--metric-from", metric)
    assert done.returncode == 0, done.stderr
    assert_true_scale(out, original, 0.01)
    scale = read_summary(out / "summary.json").metric.worlds[""]
    assert scale.residual < 0.02 and scale.measured > 1000


def test_each_window_is_compared_with_a_metric_run_however_few_photos_are(tmp_path, monkeypatch):
    monkeypatch.setattr(metre_scales, "_PHOTOS", 1)
    metric = write_true_run(tmp_path / "metric", "vggt", 6, 2, (56, 56))
    assert convert(metric.out, "--metric-from", metric.frames / "cameras.json").returncode == 0
    run = write_true_run(tmp_path / "run", T=6, V=2, size=(56, 56), window=2, worlds=worlds(3, 3))
    done = convert(run.out, "--metric-from", metric.out)
    assert done.returncode == 0, done.stderr
    scales = read_summary(run.out / "summary.json").metric.worlds
    assert [scales[window.name].scale for window in run.summary.windows] == pytest.approx(
        [world.scale for world in run.worlds], rel=0.02
    )


def test_with_a_folder_of_its_own_the_run_stays_as_it_was(original, tmp_path):
    out, before = copied(original, tmp_path / "out"), content(original.out)
    done = convert(
        out, "--formats", "ply,npz", "-o", tmp_path / "other", "--known-distance", f"cam0,cam1,{distance(original)}"
    )
    assert done.returncode == 0, done.stderr
    assert content(out) == before
    with np.load(tmp_path / "other/scene.npz") as arrays:
        np.testing.assert_allclose(arrays["depth"][0], original.depth[0, 0], rtol=1e-3)
        assert str(arrays["unit"]) == "metres"


def test_wrong_sources_are_refused_and_change_nothing(original, other, tmp_path):
    out, before = copied(original, tmp_path / "out"), content(original.out)
    line = "cam0,cam1,1"
    stranger = tmp_path / "strangers.json"
    stranger.write_text(json.dumps({name: original.cameras[0][v].to_mapping() for v, name in enumerate("ab")}))
    refused(convert(out, "--metric-from", other.out), 2, "no depth in metres")
    refused(convert(out, "--metric-from", stranger), 2, "no camera of --metric-from is one of the run's")
    refused(convert(out, "--metric-from", tmp_path), 2, "summary")
    refused(convert(out, "--known-distance", "cam0,camX,1"), 2, "names camX, which the run does not have")
    refused(convert(out, "--known-distance", "cam0,cam1,0"), 2, "no distance between two cameras")
    refused(convert(out, "--known-distance", line, "--metric-from", stranger), 2, "metres are given twice")
    assert content(out) == before


def test_cameras_in_one_place_and_windows_of_their_own_are_refused(original, tmp_path, tmp_path_factory):
    same = tmp_path / "same.json"
    entry = original.cameras[0][0].to_mapping()
    same.write_text(json.dumps({"cam0": entry, "cam1": entry}))
    refused(convert(copied(original, tmp_path / "out"), "--metric-from", same), 2, "in one place")
    folder = tmp_path_factory.mktemp("windows")
    run = write_true_run(folder, T=4, V=2, size=(56, 56), window=2, worlds=worlds(2, 3))
    refused(convert(run.out, "--known-distance", "cam0,cam1,1"), 2, "each window has its own")
    assert convert(run.out, "--metric-from", run.frames / "cameras.json").returncode == 0
    metric = read_summary(run.out / "summary.json").metric
    assert [metric.worlds[window.name].scale for window in run.summary.windows] == pytest.approx(
        [world.scale for world in run.worlds], rel=1e-3
    )
    assert Similarity.from_numbers(None).scale == 1
