"""Pi3's engines from photos to files: a run as a person starts it, compared with the reference model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from page4d.cameras import read_cameras
from page4d.precision import Precision
from page4d_engines.clip.fit import Fit, FitMode
from page4d_engines.results.scene.calibration import calibrate
from page4d_engines.results.summary import read_summary
from page4d_export.exporter import write_unverified
from page4d_export.plan.export_plan import ExportPlan
from page4d_export.sample_scene.clip import render, save
from tests.engines.results.ply import columns, read_ply
from tests.support.commands import refused, run
from tests.support.models import config_of, layout_of, lively


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photos of one time in a folder of their own."""
    folder = tmp_path_factory.mktemp("photos")
    clip = render(1, 3, 140, 112, seed=4)
    for v, name in enumerate(("IMG_2.png", "IMG_10.png", "IMG_1.png")):
        Image.fromarray(clip.frames[0, v]).save(folder / name)
    return folder


NAMES = ["IMG_1", "IMG_2", "IMG_10"]


def test_photos_become_a_cloud_cameras_and_depth(made, photos, tmp_path):
    made_ = made("pi3")
    out = tmp_path / "out"
    done = run(made_.folder, photos, "-o", out, "--min-confidence", 0, "--json")
    assert done.returncode == 0, done.stderr
    assert str(out / "points.ply") in done.stderr
    summary = read_summary(out / "summary.json")
    (window,) = summary.windows
    assert summary.cameras == NAMES and not summary.has_mask and window.mask_mean == {}

    # the same through the reference, in PyTorch
    layout = made_.plan.layout
    fit = Fit.choose((140, 112), layout, None)
    images = np.stack([fit.image(Image.open(photos / f"{name}.png").convert("RGB")) for name in NAMES])[None]
    reference = made_.model(torch.from_numpy(images))
    stored = load_file(out / window.file)
    assert set(stored) == {"points", "confidence", "camera", "layers.1"}
    np.testing.assert_allclose(stored["points"], reference.points, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stored["confidence"], reference.confidence, atol=1e-4)
    np.testing.assert_allclose(stored["camera"], reference.camera, atol=1e-4)

    # world points are the poses applied to the cameras' points, each with its pixel's colour
    vertices = read_ply(out / "points.ply")
    # seeded depth is noise: nothing counts as flying
    assert window.predictions.points == len(vertices) == layout.V * layout.H * layout.W
    world = (
        np.einsum("vij,vhwj->vhwi", reference.camera[0, :, :3, :3].double(), reference.points[0].double())
        + reference.camera[0, :, None, None, :3, 3].numpy()
    )
    np.testing.assert_allclose(columns(vertices, *"xyz"), world.reshape(-1, 3), rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(columns(vertices, "red", "green", "blue"), images.reshape(-1, 3))
    np.testing.assert_allclose(vertices["confidence"], torch.sigmoid(reference.confidence).ravel(), atol=1e-5)
    assert (window.predictions.points_from, window.predictions.threshold) == ("points", 0)

    cameras = read_cameras(out / "cameras.json")
    assert list(cameras) == NAMES
    written = json.loads((out / "cameras.json").read_text())
    for v, (name, camera) in enumerate(cameras.items()):
        assert (camera.width, camera.height) == (140, 112)
        np.testing.assert_allclose(written[name]["camera_to_world"], reference.camera[0, v], atol=1e-4)
        np.testing.assert_allclose(
            camera.world_to_camera @ reference.camera[0, v].double().numpy(), np.eye(4)[:3], atol=1e-4
        )
        with Image.open(out / "depth" / f"{name}.png") as picture:
            assert picture.mode.startswith("I;16") and picture.size == (layout.W, layout.H)
            depth = np.asarray(picture).astype(np.float64) * window.predictions.depth_scale
        true = reference.points[0, v, ..., 2].numpy()
        inside = true < 65000 * window.predictions.depth_scale
        np.testing.assert_allclose(depth[inside], true[inside], rtol=1e-3, atol=1.5 * window.predictions.depth_scale)
    report = (out / "report.html").read_text()
    assert "points.ply" in report and "depth/IMG_10.png" in report and "IMG_2" in report


def test_a_rig_over_time_is_a_cloud_per_time(made, tmp_path):
    save(render(2, 3, 140, 112, seed=5), tmp_path / "clip")
    done = run(made("pi3").folder, tmp_path / "clip", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "the clip's masks were not used" in done.stderr and "points, depth and cameras are noise" in done.stderr
    out = tmp_path / "out"
    for window in read_summary(out / "summary.json").windows:
        assert window.predictions.cloud == f"{window.name}/points.ply"
        assert sorted(path.name for path in (out / window.name).iterdir()) == ["cameras.json", "depth", "points.ply"]
        assert window.predictions.depth == [f"{window.name}/depth/cam{v}/{window.first_frame}.png" for v in range(3)]
        assert all((out / path).is_file() for path in window.predictions.depth)


def test_a_percentile_of_the_probability_of_all_photos(made, photos, tmp_path):
    out = tmp_path / "out"
    done = run(made("pi3").folder, photos, "-o", out, "--confidence-percentile", 40)
    assert done.returncode == 0, done.stderr
    (window,) = read_summary(out / "summary.json").windows
    logits = load_file(out / window.file)["confidence"]
    least = np.percentile(1 / (1 + np.exp(-logits.astype(np.float64))), 40)
    assert window.predictions.percentile == 40
    assert window.predictions.threshold == pytest.approx(least, abs=1e-6)
    vertices = read_ply(out / "points.ply")
    assert window.predictions.points == len(vertices) == pytest.approx(0.6 * logits.size, abs=2)
    assert vertices["confidence"].min() >= least - 1e-6


def test_what_does_not_go_together(made, photos, tmp_path):
    folder, out = made("pi3").folder, tmp_path / "out"
    extra = tmp_path / "four"
    extra.mkdir()
    for number in range(4):
        (extra / f"{number}.png").write_bytes((photos / "IMG_1.png").read_bytes())
    refused(
        run(folder, extra, "-o", out), 2, r"4 photos: 0, 1, 2, 3\s+allowed: V = 3\s+try: +page4d-export --T 1 --V 4"
    )
    refused(run(folder, photos, "-o", out, "--min-confidence", 1.5), 2, "Invalid value for '--min-confidence'")
    both = ("--min-confidence", 0.5, "--confidence-percentile", 50)
    refused(run(folder, photos, "-o", out, *both), 2, r"given twice\s+got: .*0\.5 and .* 50(.|\n)*one of them")
    refused(
        run(folder, photos, "-o", out, "--points-from", "depth"),
        2,
        r"from depth is made of\s+got: +--points-from depth; the engines give camera, points\s+allowed: depth, camera,"
        r" intrinsics\s+try: +--points-from points",
    )
    refused(run(made().folder, photos, "-o", out), 2, r"no camera folders", r"move the images into a folder per camera")
    (extra / "1.png").write_bytes(b"no image")
    refused(run(folder, extra, "-o", out), 2, r"1\.png cannot be read")
    assert not out.exists()


def test_nothing_is_hidden_where_the_network_gives_no_numbers(photos, tmp_path):
    """Weights whose camera head overflows: no pose, no point, and the run says so."""
    config, layout = config_of("pi3"), layout_of("pi3", 56, 70)
    model = lively(config)
    model.camera.head.fc_t.bias.fill_(3e38)
    model.camera.head.fc_t.weight.fill_(3e38)
    folder = tmp_path / "engines"
    folder.mkdir()
    write_unverified(model, ExportPlan.make(config, layout, Precision.FLOAT32), folder)
    done = run(folder, photos, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "no pose was found for IMG_1, IMG_2, IMG_10: not in cameras.json" in done.stderr
    assert len(read_ply(tmp_path / "out" / "points.ply")) == 0
    assert json.loads((tmp_path / "out" / "cameras.json").read_text()) == {}


def test_photos_of_different_sizes_have_a_camera_each_in_their_own_pixels(made, photos, tmp_path):
    """Upright and across: each is fitted by itself, and what is said of it is of the photo as it was taken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    sizes = {}
    for name, turn, scale in (("IMG_1", None, 1), ("IMG_2", Image.Transpose.ROTATE_90, 2), ("IMG_10", None, 3)):
        image = Image.open(photos / f"{name}.png")
        image = image if turn is None else image.transpose(turn)
        sizes[name] = (image.width * scale, image.height * scale)
        image.resize(sizes[name]).save(folder / f"{name}.png")
    refused(run(made("pi3").folder, folder, "-o", tmp_path / "no"), 2, "different sizes: camera IMG_2", "--fit")
    done = run(made("pi3").folder, folder, "-o", tmp_path / "out", "--fit", "pad")
    assert done.returncode == 0, done.stderr
    layout = made("pi3").plan.layout
    cameras = read_cameras(tmp_path / "out" / "cameras.json")
    stored = load_file(next((tmp_path / "out").glob("*.safetensors")))
    for v, (name, size) in enumerate(sizes.items()):
        fit = Fit.choose(size, layout, FitMode.PAD)
        expected = calibrate(
            stored["points"][0, v], stored["confidence"][0, v], stored["camera"][0, v].astype(np.float64), fit
        ).camera
        camera = cameras[name]
        assert (camera.width, camera.height) == size
        np.testing.assert_allclose(camera.K, expected.K, rtol=1e-6)
        np.testing.assert_allclose(
            camera.K[:2, 2],
            np.array(size) / 2,
            atol=max(fit.scale) ** -1,
            err_msg="padding is even: the middle stays the middle",
        )
        with Image.open(tmp_path / "out" / "depth" / f"{name}.png") as depth:
            assert depth.size == (layout.W, layout.H)
