"""Photos through Depth Anything 3 and Pi3X to files: units, the sky, cameras that were given."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from page4d import Layout
from page4d.cameras import read_cameras
from page4d.errors import UsageError
from page4d.network.heads.sky import SKY, fill_sky
from page4d.system.progress import SILENT
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.clip.frame_folder import FrameFolder
from page4d_engines.clip.search import UngroupedImages
from page4d_engines.pipeline import Pipeline
from page4d_engines.results.clip_run import ClipRun, RunOptions
from page4d_engines.results.summary import read_summary
from tests.engines.clip.bags.recordings import START, camera_info, stream, write_bag
from tests.engines.results.ply import columns, read_ply
from tests.support.da3.models import H, W, cameras_of, model_of
from tests.support.torch_engines.torch_stages import TorchStages

NAMES = ["cam0", "cam1", "cam2"]
LAYOUT = Layout(1, 3, H, W)


@pytest.fixture
def photos(tmp_path):
    """Three photos of twice the engines' size."""
    folder, rng = tmp_path / "photos", np.random.default_rng(0)
    folder.mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (2 * H, 2 * W, 3), np.uint8)).save(folder / f"{name}.png")
    return folder


def images_of(folder):
    opened = [Image.open(folder / f"{name}.png") for name in NAMES]
    return np.stack([Fit.choose(image.size, LAYOUT, FitMode.STRETCH).image(image) for image in opened])[None]


@pytest.fixture
def rig(tmp_path):
    """cameras.json of the photos, and the cameras."""
    cameras = cameras_of(3, 2 * W, 2 * H)
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(cameras))
    return path, cameras


@pytest.fixture
def ran(photos, tmp_path, monkeypatch):
    """Run a model's engines over the photos; gives the output folder and its summary."""

    def run(name, cameras=None, frames=photos, **options):
        stages = TorchStages(model_of(name), LAYOUT, 3, 1)
        engines = stages.write(tmp_path / "engines")
        pipeline = stages.pipeline(tmp_path / "loaded")
        monkeypatch.setattr(Pipeline, "of", classmethod(lambda *arguments, **named: pipeline))
        folder = FrameFolder.open(frames, cameras=cameras, loose=UngroupedImages.VIEWS)
        out = tmp_path / "out"
        ClipRun.prepare(engines, folder, out, RunOptions(fit=FitMode.STRETCH, **options)).run(SILENT)
        return out, read_summary(out / "summary.json")

    return run


def depth_in(path, scale):
    return np.asarray(Image.open(path), np.float64) * scale


def test_depth_anything_in_a_unit_of_its_own(ran, photos):
    out, summary = ran("da3")
    files, output = summary.windows[0].predictions, model_of("da3")(images_of(photos))
    assert (files.unit, files.points_from, files.confidence, files.percentile) == (
        None,
        "depth",
        "depth_confidence",
        40,
    )
    assert sorted(files.depth) == [f"depth/{name}.png" for name in NAMES]
    for v, name in enumerate(NAMES):
        depth = depth_in(out / "depth" / f"{name}.png", files.depth_scale)
        np.testing.assert_allclose(depth, output.depth[0, v], rtol=1e-3, atol=files.depth_scale)
    cameras = read_cameras(out / "cameras.json")
    assert list(cameras) == NAMES
    np.testing.assert_allclose(cameras["cam1"].K[:2, :2] / 2, output.intrinsics[0, 1, :2, :2], rtol=1e-4)
    assert "unit" not in json.loads((out / "cameras.json").read_text())["cam0"]
    report = (out / "report.html").read_text()
    assert "<h2>Points and depth</h2>" in report
    assert "the clip&rsquo;s own unit: the network knows no metres. Focal" in report


def test_known_cameras_are_the_results_cameras(ran, rig):
    path, cameras = rig
    out, summary = ran("known", cameras=path)
    written = read_cameras(out / "cameras.json")
    for name, camera in cameras.items():
        np.testing.assert_allclose(written[name].K, camera["K"], atol=1e-9)
        np.testing.assert_allclose(written[name].world_to_camera, camera["world_to_camera"], atol=1e-9)
    assert summary.windows[0].predictions.unit == "cameras"
    assert "the unit of the given cameras. Focal lengths" in (out / "report.html").read_text()


def test_known_cameras_are_needed(ran, tmp_path):
    with pytest.raises(
        UsageError, match=r"exported with --known-cameras, and the clip has none\s.*\s+try:\s+--cameras FILE"
    ):
        ran("known")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("with_rig", [True, False])
def test_metric_depth_is_in_metres_with_focal_lengths(ran, rig, photos, with_rig):
    out, summary = ran("metric", cameras=rig[0] if with_rig else None)
    files, output = summary.windows[0].predictions, model_of("metric")(images_of(photos))
    assert files.unit == ("metres" if with_rig else None)
    told = [warning for warning in summary.warnings if "not in metres: these take the focal lengths" in warning]
    assert len(told) == (not with_rig)
    stored = load_file(out / summary.windows[0].file)
    expected = output.depth.numpy().copy()
    if with_rig:  # K in the engine's pixels is half of the photo's
        for v in range(3):
            expected[0, v] *= (40 + v + 44 + v) / 2 / 2 / 300
    np.testing.assert_allclose(stored["depth"], expected, rtol=1e-4)
    np.testing.assert_allclose(stored["sky"], output.sky, rtol=1e-3, atol=1e-5)
    assert files.cloud is None and files.cameras is None and len(files.depth) == 3


def test_focal_lengths_of_a_bag_give_metres(ran, rig, photos, tmp_path):
    """CameraInfo has them, and no poses: these engines need none."""
    topics = {}
    for name, camera in rig[1].items():
        K = np.array(camera["K"]) - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        topics[f"/{name}/image_raw"] = stream(np.asarray(Image.open(photos / f"{name}.png"))[None])
        topics[f"/{name}/camera_info"] = [(START, camera_info(2 * W, 2 * H, K))]
    out, summary = ran("metric", frames=write_bag(tmp_path / "bag", topics))
    assert summary.windows[0].predictions.unit == "metres"
    expected = model_of("metric")(images_of(photos)).depth.numpy().copy()
    for v, camera in enumerate(rig[1].values()):  # K in the engine's pixels is half of the photo's
        expected[0, v] *= np.mean(np.diag(camera["K"])[:2]) / 2 / 300
    np.testing.assert_allclose(load_file(out / summary.windows[0].file)["depth"], expected, rtol=1e-4)


def test_a_bag_has_no_poses_for_known_cameras(ran, rig, photos, tmp_path):
    topics = {}
    for name, camera in rig[1].items():
        topics[f"/{name}/image_raw"] = stream(np.asarray(Image.open(photos / f"{name}.png"))[None])
        topics[f"/{name}/camera_info"] = [(START, camera_info(2 * W, 2 * H, camera["K"]))]
    with pytest.raises(UsageError, match="--known-cameras, and the clip has none"):
        ran("known", frames=write_bag(tmp_path / "bag", topics))


def test_the_sky_has_the_depth_of_what_is_far(ran, photos):
    """In the depth images; in the tensors both are as the network gave them."""
    model = model_of("mono")
    bias = model.depth.scratch.sky_output_conv2[2].bias
    before = bias.clone()
    try:
        bias += 10  # beyond the ReLU
        bias += SKY - model(images_of(photos)).sky.median()  # half of the pixels
        out, summary = ran("mono")
        output = model(images_of(photos))
    finally:
        bias.copy_(before)
    files = summary.windows[0].predictions
    stored = load_file(out / summary.windows[0].file)
    np.testing.assert_allclose(stored["depth"], output.depth, rtol=1e-4)
    expected = fill_sky(stored["depth"], stored["sky"])
    is_sky = stored["sky"] >= SKY
    assert 0.2 < is_sky.mean() < 0.8 and not np.allclose(expected, stored["depth"])
    for v, name in enumerate(NAMES):
        depth = depth_in(out / "depth" / f"{name}.png", files.depth_scale)
        np.testing.assert_allclose(depth, expected[0, v], rtol=1e-3, atol=files.depth_scale)
    assert files.unit is None and not any("metres" in warning for warning in summary.warnings)
    assert any("no points.ply" in warning for warning in summary.warnings)
    assert "<h2>Depth</h2>" in (out / "report.html").read_text(), "these engines give no cameras"


def test_pi3x_in_metres(ran, photos):
    out, summary = ran("pi3x", min_confidence=0.0)
    files, output = summary.windows[0].predictions, model_of("pi3x")(images_of(photos))
    assert (files.unit, files.confidence, files.points_from) == ("metres", "confidence", "points")
    depth = depth_in(out / "depth" / "cam2.png", files.depth_scale)
    np.testing.assert_allclose(depth, output.points[0, 2, ..., 2], rtol=1e-3, atol=files.depth_scale)
    entry = json.loads((out / "cameras.json").read_text())["cam1"]
    assert entry["unit"] == "metres"
    np.testing.assert_allclose(np.array(entry["camera_to_world"]), output.camera[0, 1], rtol=1e-4, atol=1e-5)
    assert read_cameras(out / "cameras.json").keys() == set(NAMES)
    vertices = columns(read_ply(out / "points.ply"), "x", "y", "z")
    world = output.world_points().numpy().reshape(-1, 3)
    assert files.points == len(vertices) > 0
    nearest = np.abs(vertices[:50, None] - world).max(-1).min(-1)
    assert nearest.max() < 1e-3 * np.abs(world).max(), "points are those of the network in metres"
    assert "Positions are in\nmetres. Focal lengths" in (out / "report.html").read_text()
    assert float(load_file(out / summary.windows[0].file)["metric"]) == pytest.approx(float(output.metric), rel=1e-4)
