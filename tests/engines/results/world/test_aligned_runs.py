"""Runs over clips longer than a window: one world, closed loops and metres, in all files that they write.

The engines are VGGT's, small; where the geometry has to be right, their results are replaced by the rendered scene's.
"""

import json

import numpy as np
import pytest

from page4d import Layout, ModelConfig
from page4d.cameras import read_cameras
from page4d.errors import UsageError
from page4d.precision import Precision
from page4d.system.progress import Progress
from page4d_engines.clip.frame_folder import FrameFolder, UngroupedImages
from page4d_engines.clip.window_reader import WindowReader
from page4d_engines.engine_folder import EngineFolder
from page4d_engines.options import Backend
from page4d_engines.pipeline import Pipeline, Result
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_engines.results.finished.finished_run import FinishedRun
from page4d_engines.results.summary import RUN_OUTPUT, read_summary
from page4d_engines.results.world.metres import MetricSource
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import refused, run
from tests.support.models import lively
from tests.support.true_run import write_true_run
from tests.support.world.true_windows import random_world

T, FRAMES, SIZE = 4, 13, (56, 70)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Engines of VGGT with cameras and depth, for one camera and T timesteps."""
    options = {"width": 128, "heads": 2, "depth": 4, "encoder_depth": 2, "predictions": ("camera", "depth")}
    plan = ExportPlan.make(ModelConfig.preset("vggt", **options), Layout(T, 1, *SIZE), Precision.FLOAT32, head_images=1)
    folder = tmp_path_factory.mktemp("engines")
    write_unverified(lively(plan.config), plan, folder)
    return folder


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    """The scene from a camera that goes once around it: the last frame sees what the first one does."""
    folder = tmp_path_factory.mktemp("truth")
    return write_true_run(folder, "vggt", T=FRAMES, V=1, size=SIZE, window=FRAMES, orbit=2 * np.pi / (FRAMES - 1))


class TrueNetwork:
    """What the engines would give of the scene if they were perfect, but for worlds of their own and small errors.

    Attributes:
        worlds: from each window's world to the scene's, as they were run.
    """

    def __init__(self, truth, noise=0.0, blind=(), lost=()):
        layout = Layout(FRAMES, 1, *SIZE)
        self.truth, self.noise, self.blind, self.lost = truth, noise, blind, lost
        clip = FrameFolder.open(truth.frames, loose=UngroupedImages.of(layout))
        self.reader = WindowReader(clip, layout, None, False, False)
        ((_, inputs),) = self.reader.read([range(FRAMES)])
        self.frames = {image.tobytes(): t for t, image in enumerate(inputs.images)}
        self.chance = np.random.default_rng(3)
        self.worlds, self.seen = [], []

    def run(self, images, **other):
        rows = [self.frames[image.tobytes()] for image in np.asarray(images)]
        world = random_world(self.chance)
        number = len(self.worlds)
        self.worlds.append(world)
        self.seen.append(rows)
        pose = np.tile(np.eye(4), (len(rows), 1, 1, 1))
        K = np.empty((len(rows), 1, 3, 3))
        for row, t in enumerate(rows):
            camera = self.truth.cameras[t][0]
            pose[row, 0, :3, :3], pose[row, 0, :3, 3] = camera.world_to_camera[:, :3].T, camera.centre
            K[row, 0] = self.reader.fit(t, 0).camera(camera).K
        depth = self.truth.depth[rows] / world.scale
        depth = depth * (1 + self.noise * self.chance.standard_normal((len(rows), 1, 1, 1)))
        camera = world.inverse().of_pose(pose)
        if number in self.blind:
            depth = np.full_like(depth, np.nan)
        if number in self.lost:
            camera = np.full_like(camera, np.nan)
        sure = np.full(depth.shape, 4, np.float32)
        depth = depth.astype(np.float32)
        return Result(None, {}, None, depth=depth, depth_confidence=sure, camera=camera, intrinsics=K)


def true_run_of(engines, network, out, monkeypatch, **options):
    """A run whose results the true network gives."""
    folder = EngineFolder.open(engines)
    pipeline = Pipeline.of(folder, Backend.ONNXRUNTIME, sliding=True)
    monkeypatch.setattr(pipeline, "run", network.run)
    clip = FrameFolder.open(network.truth.frames, loose=UngroupedImages.of(folder.manifest.layout))
    ready = ClipRun.prepare(folder, clip, out, RunOptions(confidence_percentile=0, **options), pipeline)
    return ready.run(Progress())


def centres_of(out):
    return np.stack([camera.centre for camera in read_cameras(out / "cameras.json").values()])


def true_centres(truth):
    return np.stack([row[0].centre for row in truth.cameras])


def test_windows_share_the_first_ones_world_in_every_file(engines, truth, tmp_path, monkeypatch):
    network, out = TrueNetwork(truth), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, align=True)
    assert network.seen[:2] == [[0, 1, 2, 3], [3, 4, 5, 6]], "by default a quarter of the frames is shared"
    assert summary.alignment.overlap == 1 and len(summary.alignment.pairs) == len(summary.windows) - 1
    assert summary.alignment.error < 1e-4

    home = network.worlds[0].inverse()  # from the scene to the first window's world
    np.testing.assert_allclose(centres_of(out), home.of_points(true_centres(truth)), atol=1e-3)
    cloud = read_ply(out / "points.ply")
    assert len(cloud) == summary.points > 1000
    scene = home.inverse().of_points(columns(cloud, "x", "y", "z"))
    flat = truth.points.reshape(-1, 3)
    nearest = np.array([np.linalg.norm(flat - point, axis=1).min() for point in scene[:: len(scene) // 50]])
    assert nearest.max() < 0.01
    for window, world in zip(summary.windows, network.worlds, strict=True):
        np.testing.assert_allclose(window.world.scale, home.scale * world.scale, rtol=1e-4)
        assert window.predictions.depth_scale > 0
    assert not list(out.glob("window_*/points.ply")) and not list(out.glob("window_*/cameras.json"))
    assert read_summary(out / "summary.json") == summary
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *RUN_OUTPUT.files(out),
        "summary.json",
    }
    assert summary.alignment.in_words in (out / "report.html").read_text()


def test_depth_images_of_all_windows_have_the_scenes_unit(engines, truth, tmp_path, monkeypatch):
    network, out = TrueNetwork(truth), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, align=True)
    from PIL import Image

    for window, rows in zip(summary.windows, network.seen, strict=True):
        files = window.predictions
        for path, t in zip(files.depth, rows, strict=True):
            depth = np.asarray(Image.open(out / path)) * files.depth_scale
            np.testing.assert_allclose(depth * network.worlds[0].scale, truth.depth[t, 0], rtol=2e-3)


def test_without_align_each_window_keeps_its_world(engines, truth, tmp_path, monkeypatch):
    summary = true_run_of(engines, TrueNetwork(truth), tmp_path / "out", monkeypatch)
    assert summary.alignment is None and all(window.world is None for window in summary.windows)
    assert all((tmp_path / "out" / window.name / "points.ply").is_file() for window in summary.windows)


def test_a_loop_is_closed_and_the_drift_is_less(engines, truth, tmp_path, monkeypatch):
    errors = {}
    for close in (False, True):
        network, out = TrueNetwork(truth, noise=0.03), tmp_path / f"out{close}"
        summary = true_run_of(engines, network, out, monkeypatch, align=True, close_loop=close)
        off = network.worlds[0].of_points(centres_of(out)) - true_centres(truth)
        errors[close] = np.linalg.norm(off[-3:], axis=1).mean()
    loop = summary.alignment.loop
    assert network.seen[-1] == [FRAMES - 2, FRAMES - 1, 0, 1]
    assert loop.closed and loop.frames == ["000011", "000012", "000000", "000001"]
    assert loop.after.distance < loop.before.distance / 2
    assert errors[True] < errors[False] / 2
    assert "Loop closed" in (tmp_path / "outTrue/report.html").read_text()


def test_a_loop_that_is_none_is_left_open_with_a_warning(engines, tmp_path, monkeypatch, tmp_path_factory):
    away = write_true_run(tmp_path_factory.mktemp("away"), "vggt", T=FRAMES, V=1, size=SIZE, orbit=np.pi / (FRAMES - 1))
    network = TrueNetwork(away)
    honest = network.run

    def confused(images, **other):
        """As a network that takes two places for one: the last frames stand far beside the first ones."""
        result = honest(images, **other)
        if network.seen[-1][-1] < network.seen[-1][0]:
            result.camera[:2, ..., :3, 3] += 500 / network.worlds[-1].scale
        return result

    monkeypatch.setattr(network, "run", confused)
    summary = true_run_of(engines, network, tmp_path / "out", monkeypatch, align=True, close_loop=True)
    assert not summary.alignment.loop.closed
    assert any("the loop was not closed" in warning for warning in summary.warnings)
    np.testing.assert_allclose(
        centres_of(tmp_path / "out"), network.worlds[0].inverse().of_points(true_centres(away)), atol=1e-3
    )


def test_a_window_without_points_goes_by_its_cameras(engines, truth, tmp_path, monkeypatch):
    network, out = TrueNetwork(truth, blind=(2,)), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, align=True, stride=2)
    assert [pair.fitted_to for pair in summary.alignment.pairs[:4]] == ["points", "cameras", "cameras", "points"]
    assert any("by the cameras alone" in warning for warning in summary.warnings)
    off = network.worlds[0].of_points(centres_of(out)) - true_centres(truth)
    assert np.abs(off).max() < 1e-2


def test_a_window_with_neither_points_nor_cameras_is_named(engines, truth, tmp_path, monkeypatch):
    network = TrueNetwork(truth, lost=(2,))
    summary = true_run_of(engines, network, tmp_path / "out", monkeypatch, align=True)
    assert [pair.fitted_to for pair in summary.alignment.pairs] == ["points", "nothing", "nothing", *["points"] * 0]
    assert any(summary.windows[2].name in warning and "not in the world" in warning for warning in summary.warnings)


def test_known_cameras_bring_all_to_metres_and_their_world(engines, truth, tmp_path, monkeypatch):
    known = {f"{t:06d}": truth.cameras[t][0].to_mapping() for t in range(FRAMES)}
    path = tmp_path / "known.json"
    path.write_text(json.dumps(known))
    network, out = TrueNetwork(truth), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, align=True, metric=MetricSource.of(path, None))
    np.testing.assert_allclose(centres_of(out), true_centres(truth), atol=2e-3)
    assert summary.metric.source == "cameras" and summary.metric.worlds[""].residual < 1e-3
    assert {window.predictions.unit for window in summary.windows} == {"metres"}
    assert json.loads((out / "cameras.json").read_text())["000000"]["unit"] == "metres"
    np.testing.assert_allclose(summary.metric.worlds[""].scale, network.worlds[0].scale, rtol=1e-3)
    (scene,) = FinishedRun.open(out).scenes()
    image = next(iter(scene.images()))
    np.testing.assert_allclose(image.depth, truth.depth[0, 0], rtol=1e-3)
    np.testing.assert_allclose(image.points, truth.points[0, 0], atol=1e-2)


def test_each_window_of_its_own_world_gets_its_own_scale(engines, truth, tmp_path, monkeypatch):
    known = {f"{t:06d}": truth.cameras[t][0].to_mapping() for t in range(FRAMES)}
    path = tmp_path / "known.json"
    path.write_text(json.dumps(known))
    network, out = TrueNetwork(truth), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, metric=MetricSource.of(path, None))
    assert len(summary.metric.worlds) == len(summary.windows)
    for window, world in zip(summary.windows, network.worlds, strict=True):
        np.testing.assert_allclose(summary.metric.worlds[window.name].scale, world.scale, rtol=1e-2)
        assert (out / window.predictions.cloud).is_file()


def test_a_known_distance_brings_all_to_metres(engines, truth, tmp_path, monkeypatch):
    metres = float(np.linalg.norm(true_centres(truth)[0] - true_centres(truth)[5]))
    source = MetricSource.of(None, f"000000,000005,{metres}")
    network, out = TrueNetwork(truth), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, align=True, metric=source)
    centres = centres_of(out)
    assert np.linalg.norm(centres[0] - centres[5]) == pytest.approx(metres, rel=1e-6)
    np.testing.assert_allclose(summary.metric.worlds[""].scale, network.worlds[0].scale, rtol=1e-3)


def test_a_finished_run_in_metres_tells_the_scale_of_another(engines, truth, tmp_path, monkeypatch):
    metres = float(np.linalg.norm(true_centres(truth)[0] - true_centres(truth)[5]))
    first = tmp_path / "metric"
    source = MetricSource.of(None, f"000000,000005,{metres}")
    true_run_of(engines, TrueNetwork(truth), first, monkeypatch, align=True, metric=source)
    network, out = TrueNetwork(truth, noise=0.01), tmp_path / "out"
    summary = true_run_of(engines, network, out, monkeypatch, align=True, metric=MetricSource.of(first, None))
    assert summary.metric.source == "depth" and summary.metric.worlds[""].measured > 1000
    np.testing.assert_allclose(summary.metric.worlds[""].scale, network.worlds[0].scale, rtol=0.03)


def test_the_command_says_how_it_aligned_and_keeps_it_with_resume(engines, truth, tmp_path):
    out = tmp_path / "out"
    arguments = (engines, truth.frames, "-o", out, "--align", "--known-distance", "000000,000005,2")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "aligned: " in done.stderr and "overlap 1" in done.stderr and "metres:  " in done.stderr
    assert str(out / "points.ply") in done.stderr
    before = (out / "summary.json").stat().st_mtime_ns
    assert run(*arguments, "--resume").returncode == 0
    assert (out / "summary.json").stat().st_mtime_ns == before
    assert run(*arguments[:-1], "000000,000005,3", "--resume").returncode == 0
    assert (out / "summary.json").stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--align", "--stride", 4), "share none"),
        (("--close-loop",), "--align"),
        (("--known-distance", "000000,000005,2"), "each has its own|each window has its own"),
        (("--align", "--known-distance", "000000,nothing,2"), "names nothing, which the run does not have"),
        (("--align", "--known-distance", "000000,000001"), "no distance between two cameras"),
        (("--align", "--known-distance", "000000,000001,-1"), "no distance between two cameras"),
        (("--metric-from", "missing.json"), "missing.json"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_written(engines, truth, tmp_path, flags, message):
    refused(run(engines, truth.frames, "-o", tmp_path / "out", *flags), 2, message)
    assert not (tmp_path / "out").exists()


def test_one_known_camera_or_strange_ones_are_refused(engines, truth, tmp_path):
    entry = truth.cameras[0][0].to_mapping()
    one, strange = tmp_path / "one.json", tmp_path / "strange.json"
    one.write_text(json.dumps({"000000": entry}))
    strange.write_text(json.dumps({"left": entry, "right": truth.cameras[1][0].to_mapping()}))
    out = tmp_path / "out"
    refused(run(engines, truth.frames, "-o", out, "--metric-from", one), 2, "one camera says nothing of metres")
    refused(run(engines, truth.frames, "-o", out, "--metric-from", strange), 2, r"left.*\s+allowed:.*000000")
    refused(run(engines, truth.frames, "-o", out, "--metric-from", one, "--known-distance", "a,b,1"), 2, "given twice")
    refused(run(engines, truth.frames, "-o", out, "--metric-from", truth.out), 2, "no depth in metres")
    assert not out.exists()


def test_engines_of_one_timestep_cannot_be_aligned():
    from page4d_engines.results.world.run_world import aligned_stride

    with pytest.raises(UsageError, match="one at a time"):
        aligned_stride(1, None)
    assert [aligned_stride(T, None) for T in (2, 3, 4, 8, 16)] == [1, 2, 3, 6, 12]
